# Rung's file: advancing to another stage may change it.
"""A SQL prompt on the database: `make psql`."""

import os

from dev import postgres

if __name__ == "__main__":
    psql = postgres.binaries() / "psql"
    os.execve(psql, ["psql", os.environ["DATABASE_URL"]], postgres.environment())  # noqa: S606
