"""Runs the team's tests of orders three ways, and tests of its own with two databases."""

import json
import os
import re
import shutil
import subprocess
import sys

from dev import postgres
from dev.pytest_plugin import Databases

TWINS = "tests/test_twins.py"
TESTS = ("tests/test_orders.py", "tests/test_orders_hand_over.py", TWINS)
# Requests that the schema refuses reach no database.
CHOSEN = ("-k", "not a_quantity_is_a_whole_number")
PYTEST = (sys.executable, "-m", "pytest", "-n", "2", "-p", "hand_over.ways", *CHOSEN)
MODULE = (sys.executable, "-m", "app.infra.module_databases", "orders")


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout[-15_000:] + done.stderr[-3000:])
    return done.stdout


def main() -> None:
    shutil.copy("hand_over/test_twins.py", TWINS)  # where the team's fixtures are
    with (
        postgres.throwaway(f"rung-hand-over-{os.getpid()}") as server,
        Databases(server) as databases,
        databases.created() as url,
    ):
        own = {"MODULE_ORDERS_DATABASE_URL": url, "DATABASE_URL": url}
        run(*MODULE, "revision", "--autogenerate", "-m", "the orders", **own)
        run(*MODULE, "upgrade", "head", **own)
        outcome = run(*PYTEST, *TESTS, SECOND_SERVER=server, ORDERS_TEMPLATE=url.rpartition("/")[2])
    print(json.dumps(re.findall(r"(\d+) (\w+)", outcome.strip().splitlines()[-1])))


if __name__ == "__main__":
    main()
