# Rung's file: advancing to another stage may change it.
"""Refuses migrations whose SQL would lock a busy table or break the version that still runs.

Squawk reads the SQL of `alembic upgrade --sql`. .squawk.toml chooses its rules.
"""

import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from dev import programs


def main(**options: str) -> None:
    """`options` replace those of Alembic in pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = _write_sql(Path(folder), options)
        except CommandError as error:
            sys.exit(f"Alembic cannot read the migrations: {error}")
        if failed := programs.run("squawk", *files, timeout=300).returncode:
            sys.exit(failed)


def _write_sql(folder: Path, options: dict[str, str]) -> list[Path]:
    scripts = ScriptDirectory.from_config(_config(options))
    try:
        revisions = list(scripts.walk_revisions())
    except KeyError as error:
        sys.exit(f"A migration names a parent that is not there: {error}")
    files = []
    for revision in revisions:
        file = Path(folder, Path(revision.path).stem).with_suffix(".sql")
        file.write_text(_sql(revision, options), encoding="utf-8")
        files.append(file)
    return files


def _config(options: dict[str, str], **given: Any) -> Config:
    config = Config(toml_file="pyproject.toml", **given)
    for name, value in options.items():
        config.set_main_option(name, value)
    return config


def _sql(revision: Script, options: dict[str, str]) -> str:
    if revision.is_merge_point:
        return ""
    sql = io.StringIO()
    config = _config(options, output_buffer=sql)
    command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
    return re.sub(r"CREATE TABLE alembic_version \(.*?\);", "", sql.getvalue(), flags=re.DOTALL)


if __name__ == "__main__":
    main()
