# Rung's file: advancing to another stage may change it.
"""A SQL prompt on the database: `make psql`."""

import os
from urllib.parse import unquote, urlsplit

from dev import postgres


def run(url: str) -> None:
    psql = postgres.binaries() / "psql"
    parts = urlsplit(url)
    variables = postgres.environment()
    if parts.password:  # which every user of this machine could read in the list of processes
        variables["PGPASSWORD"] = unquote(parts.password)
    address = parts.netloc.replace(f":{parts.password}@", "@", 1)
    os.execve(psql, ["psql", parts._replace(netloc=address).geturl()], variables)  # noqa: S606


if __name__ == "__main__":
    run(os.environ["DATABASE_URL"])
