# Rung's file: advancing to another stage may change it.
"""Refuse a new crossing of a module's border in the code, and a listed one that is gone."""

import sys

from dev.module_databases import common_sessions
from dev.module_databases.borders import COMMON_SESSION, gone, listed_crossings, new

# Kinds of crossings that this lint judges. The tests judge all others, because they see more.
ONLY_IN_THE_CODE = (": foreign key of ", ": relationship of ", f": {COMMON_SESSION} of ")


def main() -> None:
    crossings = common_sessions.crossings()
    listed = listed_crossings()
    if listed is None:
        if crossings:
            print(
                f"{len(crossings)} place(s) cross the border of a module."
                " To accept only these: make test, then make module-borders RECORD=yes"
            )
        return
    problems = new(crossings, listed) + gone(crossings, listed, ONLY_IN_THE_CODE)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
