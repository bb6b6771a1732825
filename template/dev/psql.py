# Rung's file: advancing to another stage may change it.
import os

from dev import postgres

if __name__ == "__main__":
    os.execve(postgres.binaries() / "psql", ["psql", os.environ["DATABASE_URL"]], postgres.environment())
