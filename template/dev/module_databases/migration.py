# Rung's file: advancing to another stage may change it.
"""`make module-migration`: write a migration for a module's own database, its first one too."""

import os
import sys

from dev.module_databases import own
from dev.programs import run_module

USAGE = 'Name the module and the change: make module-migration NAME=billing m="add a note"'
NO_URL = "Set {}: DATABASE_URL leads to a server that `make dev` does not run."


def main() -> None:
    module, what = sys.argv[1:]
    if not module or not what:
        sys.exit(USAGE)
    if not module.isidentifier() or not (own.APP / module).is_dir():
        sys.exit(f"There is no module app/{module}. {USAGE}")
    if own.variable(module) not in os.environ:
        with own.beside(module, os.environ) as found:
            os.environ.update(found or sys.exit(NO_URL.format(own.variable(module))))
    if module in own.with_history():
        run_module("app.infra.module_databases", module, "upgrade", "head")
    run_module("app.infra.module_databases", module, "revision", "--autogenerate", "-m", what)
    print("Read it, then: make migrate")


if __name__ == "__main__":
    main()
