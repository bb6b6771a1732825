# Rung's file: advancing to another stage may change it.
"""Refuse unsafe migrations of modules' own databases, by the rules of dev/lint_migrations.py."""

from dev import lint_migrations
from dev.module_databases import own


def main() -> None:
    for module in own.with_history():
        lint_migrations.main(**own.history(module))


if __name__ == "__main__":
    main()
