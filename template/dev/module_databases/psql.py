# Rung's file: advancing to another stage may change it.
"""A SQL prompt on a module's own database: `make module-psql NAME=billing`."""

import os
import sys

from dev import psql
from dev.module_databases import own


def main() -> None:
    module, urls = sys.argv[1], own.urls(os.environ)
    if module not in urls:
        known = ", ".join(urls) or "none"
        sys.exit(f"{module!r} has no own database. Modules that have one: {known}.")
    psql.run(urls[module])


if __name__ == "__main__":
    main()
