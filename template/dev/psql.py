# Rung's file: advancing to another stage may change it.
"""A SQL prompt on the database: `make psql`."""

import os

from dev import postgres


def run(url: str) -> None:
    psql = postgres.binaries() / "psql"
    shown, variables = postgres.without_password(url)
    os.execve(psql, ["psql", shown], variables)  # noqa: S606


if __name__ == "__main__":
    run(os.environ["DATABASE_URL"])
