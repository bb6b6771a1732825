"""Gives orders a database as on a laptop, then runs the team's tests of orders three ways."""

import json
import re
import shutil
import subprocess
import sys

TWINS = "tests/test_twins.py"
TESTS = ("tests/test_orders.py", "tests/test_orders_hand_over.py", TWINS)
# Requests that the schema refuses reach no database.
CHOSEN = ("-k", "not a_quantity_is_a_whole_number")
PYTEST = (sys.executable, "-m", "pytest", "-n", "2")
THREE_WAYS = (*PYTEST, "-p", "hand_over.ways", *CHOSEN)
OWN_HISTORY = "tests/infra/module_databases/test_own_histories.py"
LAPTOP = (sys.executable, "-m", "dev", sys.executable, "-m")
MIGRATED = r"The database app is at 0003 \(head\)\nThe database app_orders is at \w+ \(head\)\n"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-15_000:] + done.stderr[-3000:])
    return done.stdout


def main() -> None:
    shutil.copy("hand_over/test_twins.py", TWINS)  # where the team's fixtures are
    run(*LAPTOP, "dev.module_databases.migration", "orders", "the orders")
    if not re.search(MIGRATED, said := run(*LAPTOP, "dev.migrate")):
        sys.exit(said)
    run(*PYTEST, "-m", "slow", OWN_HISTORY)
    outcome = run(*THREE_WAYS, *TESTS)
    print(json.dumps(re.findall(r"(\d+) (\w+)", outcome.strip().splitlines()[-1])))


if __name__ == "__main__":
    main()
