# Rung's file: advancing to another stage may change it.
"""make module-borders NAME=orders: what prevents a move of that module's tables."""

import sys
import textwrap
from collections.abc import Sequence

from dev.module_databases import code
from dev.module_databases.borders import (
    ADVICE,
    DEBTS,
    Crossing,
    known_debts,
    owners,
    seen_in_tests,
    without_doubles,
)

HEADER = """\
# Crossings of a module's border that may stay for now. `make check` refuses every other
# crossing, and each line whose crossing is gone. RECORD=yes deletes such lines and adds none.
"""


def main() -> None:
    name, record = [*sys.argv[1:], "", ""][:2]
    seen = seen_in_tests()
    crossings = without_doubles(code.crossings(), seen or ())
    modules = sorted(set(owners().values()))
    if name and name not in modules:
        sys.exit(f"No module {name!r} has tables. These have: {', '.join(modules)}")
    if record:
        write_list(crossings, tests_have_run=seen is not None)
        return
    in_the_way = [one for one in crossings if not name or name in one.modules]
    for crossing in in_the_way:
        print(crossing)
    for kind in sorted({one.kind for one in in_the_way}):
        print()
        print(textwrap.fill(f"{kind}: {ADVICE[kind]}", 100, subsequent_indent="    "))
    if in_the_way:
        print()
    of = f" of {name}" if name else ""
    print(f"{len(in_the_way) or 'Nothing'} to change before the tables{of} can move.")
    if seen is None:
        print("No test has run yet. `make test` also finds what the code does not show.")


def write_list(crossings: Sequence[Crossing], *, tests_have_run: bool) -> None:
    if not tests_have_run:
        sys.exit("Run `make test` first: only the tests see every transaction.")
    debts = known_debts()
    found = {one.debt for one in crossings}
    if debts is None:
        text, paid = HEADER + "".join(f"{debt}\n" for debt in sorted(found)), set[str]()
    else:
        paid = set(debts) - found
        lines = DEBTS.read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if line.strip() not in paid)
    DEBTS.write_text(text, encoding="utf-8")
    gone = f", {len(paid)} gone" if paid else ""
    print(f"{DEBTS}: {len(known_debts() or ())} known crossing(s){gone}. Commit it.")


if __name__ == "__main__":
    main()
