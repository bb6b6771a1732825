# Rung's file: advancing to another stage may change it.
"""Refuses migrations whose SQL would lock a busy table or break the version that still runs.

Squawk and unsafe_sql.py read the SQL of `alembic upgrade --sql`. .squawk.toml has Squawk's rules.
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
from sqlalchemy.exc import SQLAlchemyError

from dev import programs, unsafe_sql


def main(**options: str) -> None:
    """`options` replace those of Alembic in pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = _write_sql(Path(folder), options)
        except CommandError as error:
            sys.exit(f"Alembic cannot read the migrations: {error}")
        failed = programs.run("squawk", *written, timeout=300).returncode
    unsafe = [(name, *form) for name, sql in written.values() for form in unsafe_sql.found(sql)]
    for name, rule, statement, harm in unsafe:
        print(f"{name}: {rule}: {statement}\n    {harm} See docs/runbooks/schema-changes.md.")
    if failed or unsafe:
        sys.exit(failed or 1)


def _write_sql(folder: Path, options: dict[str, str]) -> dict[Path, tuple[str, str]]:
    """By file for Squawk: the migration and its SQL."""
    scripts = ScriptDirectory.from_config(_config(options))
    try:
        revisions = list(scripts.walk_revisions())
    except KeyError as error:
        sys.exit(f"There is no parent {error} of a migration. Correct its down_revision.")
    written = {}
    for revision in revisions:
        sql = _sql(revision, options)
        file = Path(folder, Path(revision.path).stem).with_suffix(".sql")
        file.write_text(unsafe_sql.for_squawk(sql), encoding="utf-8")
        written[file] = (Path(revision.path).name, sql)
    return written


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
    try:
        command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
    except (AssertionError, AttributeError, TypeError, SQLAlchemyError) as error:
        sys.exit(
            f"Cannot read {revision.path}: {type(error).__name__}: {error}\nIf it needs a database:"
            " the lint has none. Use op.execute, and use no result of it. Or put this code under"
            " `if not op.get_context().as_sql:`, which the lint does not read."
        )
    # Alembic's own table, which may have another name.
    own = r"CREATE TABLE \S+ \(\s*version_num VARCHAR\(32\) NOT NULL.*?\);"
    return re.sub(own, "", sql.getvalue(), flags=re.DOTALL)


if __name__ == "__main__":
    main()
