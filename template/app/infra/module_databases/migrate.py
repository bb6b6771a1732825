# Rung's file: advancing to another stage may change it.
"""python -m app.infra.module_databases.migrate: the migrations of a release, on each database."""

import subprocess
import sys

from alembic.config import Config

from app.infra.module_databases import settings
from app.infra.module_databases.__main__ import keep_to_history


def main() -> None:
    histories = {"the common database": ["alembic"]}
    for module in settings.with_own_database():
        settings.read(module)  # stops here, before anything has changed
        keep_to_history(module, Config(toml_file="pyproject.toml"))  # as here
        histories[f"the database of {module}"] = ["app.infra.module_databases", module]
    done: list[str] = []
    for name, history in histories.items():
        print(f"Migrating {name}", flush=True)
        # One process for each, because a module's command removes all other tables from Base.
        command = [sys.executable, "-m", *history, "upgrade", "head"]
        if subprocess.run(command).returncode != 0:  # noqa: S603  # nothing here is an input
            before = f" Already at its newest migration: {', '.join(done)}." if done else ""
            sys.exit(
                f"The migration of {name} has failed: the reason is above.{before}"
                " Correct it, and run the release again: it continues here."
            )
        done.append(name)


if __name__ == "__main__":
    main()
