# Rung's file: advancing to another stage may change it.
"""Alembic's command, without a traceback at Ctrl-C: `dev` handles it before the slow imports."""

from alembic.config import main

if __name__ == "__main__":
    main(prog="alembic")
