"""`make migration` compares the models with Postgres."""

import re
from pathlib import Path

import pytest
from serving import run
from test_module_command import project as project

MODELS = """

class Stay(Base):
    __tablename__ = "stays"
    __table_args__ = ({"postgresql_partition_by": "RANGE (at)"},)

    at: Mapped[datetime] = mapped_column(primary_key=True)


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = ({"schema": "billing"},)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
"""
BEFORE = """\
    op.execute("CREATE SCHEMA billing")
    op.execute("CREATE SCHEMA queue")
    op.execute("CREATE TABLE queue.jobs (id int)")
"""
AFTER = """
    op.execute("CREATE TABLE stays_2026 PARTITION OF stays DEFAULT")

"""


@pytest.mark.slow
def test_partitions_stay_and_other_schemas_are_compared(project: Path) -> None:
    models = project / "app/catalog/models.py"
    imports = "from datetime import datetime\n\nfrom sqlalchemy import Identity\n"
    models.write_text(imports + models.read_text() + MODELS, encoding="utf-8")
    assert migration(project, "stays") == ["create_table", "create_table"]
    [written] = project.glob("migrations/versions/*_stays.py")
    text = written.read_text(encoding="utf-8")
    begin = "def upgrade() -> None:\n"
    text = text.replace(begin, begin + BEFORE)
    text = text.replace("\n\ndef downgrade", AFTER + "\ndef downgrade")
    written.write_text(text, encoding="utf-8")

    assert migration(project, "nothing") == []


@pytest.mark.slow
def test_make_test_says_which_migration_cannot_run(project: Path) -> None:
    for branch in ("notes", "tags"):
        assert run("make", "migration", f"m={branch}", within=project).returncode == 0
    [notes] = project.glob("migrations/versions/*_notes.py")
    [tags] = project.glob("migrations/versions/*_tags.py")
    written = tags.read_text(encoding="utf-8")
    tags.write_text(re.sub("(?m)^down_revision.*", 'down_revision = "0001"', written))
    assert "\nTwo branches have each added a migration. Join them: " in said(project)
    tags.unlink()
    written = notes.read_text(encoding="utf-8")
    notes.write_text(written.replace("-> None:", "-> None:\n    raise ValueError(7)", 1))
    assert "\nValueError: 7" in said(project)


def said(project: Path) -> str:
    done = run("make", "test", within=project)
    assert done.returncode != 0
    assert "INTERNALERROR" not in done.stdout
    [_, reason] = done.stdout.split("`alembic upgrade head` failed:")
    return reason


def migration(project: Path, what: str) -> list[str]:
    """What Alembic wants to do."""
    done = run("make", "migration", f"m={what}", within=project)
    assert done.returncode == 0, done.stdout + done.stderr
    [written] = project.glob(f"migrations/versions/*_{what}.py")
    upgrade = written.read_text(encoding="utf-8").partition("def downgrade")[0]
    return [line.split("(")[0] for line in upgrade.split("op.")[1:] if "table(" in line]
