# Rung's file: advancing to another stage may change it.
"""Refuse a new crossing of a module's border in the code, and a listed one that is gone."""

import sys

from dev.module_databases import code
from dev.module_databases.borders import DEBTS, known_debts, not_listed

# Kinds of debts that this lint judges. The tests judge all others, because they see more.
ONLY_IN_THE_CODE = (": foreign key of ", ": relationship of ")


def main() -> None:
    crossings = code.crossings()
    debts = known_debts()
    if debts is None:
        if crossings:
            print(
                f"{len(crossings)} place(s) cross the border of a module."
                " To accept only these: make test, then make module-borders RECORD=yes"
            )
        return
    found = {one.debt for one in crossings}
    problems = [str(one) for one in not_listed(crossings, debts)]
    if problems:
        problems.append(
            "These cross the border of a module. What to write instead: make module-borders"
        )
    judged = [debt for debt in debts if any(kind in debt for kind in ONLY_IN_THE_CODE)]
    paid = [debt for debt in judged if debt not in found]
    problems += [f"{DEBTS}: gone, so delete this line: {debt}" for debt in paid]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
