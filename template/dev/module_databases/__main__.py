# Rung's file: advancing to another stage may change it.
"""make module-borders NAME=orders: what prevents a move of that module's tables."""

import sys
import textwrap
from collections.abc import Sequence

from dev.module_databases import common_sessions
from dev.module_databases.borders import (
    ADVICE,
    KNOWN_CROSSINGS,
    Crossing,
    listed_crossings,
    owners,
    seen_in_tests,
    without_duplicates,
)

HEADER = """\
# Crossings of a module's border that may stay for now. `make check` refuses every other
# crossing, and each line whose crossing is gone. RECORD=yes deletes such lines and adds none.
"""


def main() -> None:
    name, record = [*sys.argv[1:], "", ""][:2]
    seen = seen_in_tests()
    # `make check` accepts a common session in a module without its own history: the list has none.
    in_code = common_sessions.crossings() if record else common_sessions.crossings({name})
    crossings = without_duplicates(in_code, seen or ())
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
        print("No test has run yet. `make test` finds crossings that the code does not show.")


def write_list(crossings: Sequence[Crossing], *, tests_have_run: bool) -> None:
    if not tests_have_run:
        sys.exit("Run `make test` first: only the tests see every transaction.")
    listed = listed_crossings()
    found = {one.entry for one in crossings}
    if listed is None:
        text, gone = HEADER + "".join(f"{entry}\n" for entry in sorted(found)), set[str]()
    else:
        gone = set(listed) - found
        lines = KNOWN_CROSSINGS.read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if line.strip() not in gone)
    KNOWN_CROSSINGS.write_text(text, encoding="utf-8")
    removed = f", {len(gone)} gone" if gone else ""
    number = len(listed_crossings() or ())
    print(f"{KNOWN_CROSSINGS}: {number} known crossing(s){removed}. Commit it.")


if __name__ == "__main__":
    main()
