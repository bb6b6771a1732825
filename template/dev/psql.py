# Rung's file: advancing to another stage may change it.
"""A SQL prompt on the database: `make psql`."""

import os
from urllib.parse import unquote, urlsplit

from dev import postgres


def run(url: str) -> None:
    psql = postgres.binaries() / "psql"
    password = urlsplit(url).password
    variables = postgres.environment()
    if password:  # which every user of this machine could read in the list of processes
        variables["PGPASSWORD"] = unquote(password)
        url = url.replace(f":{password}@", "@", 1)
    os.execve(psql, ["psql", url], variables)  # noqa: S606


if __name__ == "__main__":
    run(os.environ["DATABASE_URL"])
