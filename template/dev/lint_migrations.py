# Rung's file: advancing to another stage may change it.
"""Refuse migrations whose SQL would lock a busy table or break the version that still runs.

Squawk reads the SQL of `alembic upgrade --sql`. .squawk.toml chooses its rules.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory


def main() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file="pyproject.toml"))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for revision in scripts.walk_revisions():
            file = Path(folder, Path(revision.path).stem).with_suffix(".sql")
            file.write_text(_sql(revision))
            files.append(file)
        sys.exit(subprocess.run(["squawk", *files]).returncode)


def _sql(revision: Script) -> str:
    if revision.is_merge_point:
        return ""
    sql = io.StringIO()
    config = Config(toml_file="pyproject.toml", output_buffer=sql)
    command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
    return re.sub(r"CREATE TABLE alembic_version \(.*?\);", "", sql.getvalue(), flags=re.DOTALL)


if __name__ == "__main__":
    main()
