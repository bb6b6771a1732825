# Rung's file: advancing to another stage may change it.
"""Refuse migrations whose SQL would lock a busy table or break the version that is still running.

Squawk reads what `alembic upgrade --sql` would run; .squawk.toml says which of its rules hold.
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory


def main() -> None:
    revisions = list(ScriptDirectory.from_config(Config(toml_file="pyproject.toml")).walk_revisions())
    with tempfile.TemporaryDirectory() as folder:
        for revision in revisions:
            Path(folder, f"{Path(revision.path).stem}.sql").write_text(_sql(revision))
        status = subprocess.run(["squawk", "--config", Path(".squawk.toml").resolve(), *sorted(Path(folder).iterdir())])
    sys.exit(status.returncode)


def _sql(revision: Script) -> str:
    if revision.is_merge_point:
        return ""
    sql = io.StringIO()
    config = Config(toml_file="pyproject.toml", output_buffer=sql)
    command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
    return sql.getvalue()


if __name__ == "__main__":
    main()
