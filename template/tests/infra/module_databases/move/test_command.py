# Rung's file: advancing to another stage may change it.
"""The command, as it runs in production's image."""

import pytest

from dev.postgres import REPOSITORY
from tests.infra.module_databases.conftest import Practice
from tests.infra.module_databases.move.conftest import ROLE, Urls, as_the_app, run

pytestmark = pytest.mark.slow

PROJECT = """\
[tool.alembic]
script_location = "%(here)s/migrations"
"""
COMMAND = "app.infra.module_databases.move"


@pytest.fixture
def vets(practice: Practice, urls: Urls, monkeypatch: pytest.MonkeyPatch) -> Practice:
    practice.write("pyproject.toml", PROJECT)
    practice.write("app/main.py", "import app.pets.models\nimport app.vets.models\n")
    practice.write("migrations/env.py", (REPOSITORY / "migrations/env.py").read_text())
    practice.write("migrations/vets/README", "No migration of these tables has run.\n")
    monkeypatch.setenv("DATABASE_URL", as_the_app(urls[0]))
    monkeypatch.setenv("MODULE_VETS_DATABASE_URL", as_the_app(urls[1]))
    monkeypatch.setenv("MOVE_FROM_URL", urls[0])
    monkeypatch.setenv("MOVE_TO_URL", urls[1])
    return practice


async def test_the_command_moves_the_tables_of_the_models(vets: Practice, urls: Urls) -> None:
    vets.edit("app/vets/models.py", '"vets"', '"50% vets"')
    vets.edit("app/pets/models.py", '"vets.id"', '"50% vets.id"')
    table = 'CREATE TABLE "50% vets" (id bigint PRIMARY KEY, visits bigint)'
    for url in urls:
        await run(url, f'{table}; GRANT ALL ON "50% vets" TO {ROLE}')
    await run(urls[0], 'INSERT INTO "50% vets" VALUES (1, 3)')

    status, said = vets.runs(COMMAND, "vets", "preflight")
    assert status == 0, said
    assert said.startswith("The databases show no obstacle to the move of vets.")
    status, said = vets.runs(COMMAND, "vets", "copy")
    assert status == 0, said
    assert "\nvets: the new database has all tables, and each change follows." in said
    status, said = vets.runs(COMMAND, "vets", "abort")
    assert (status, said.startswith("vets: replication has ended, and the old")) == (0, True), said


def test_each_mistake_is_reported_in_one_line(
    vets: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = vets.runs(COMMAND, "vets", "copy")
    assert (status, said) == (
        1,
        "vets does not exist in The old database and The new database: run the migrations there.\n",
    )

    monkeypatch.setenv("MOVE_TO_URL", "postgresql://app:hunter2@127.0.0.1:1/app")
    status, said = vets.runs(COMMAND, "vets", "copy")
    assert (status, said.count("\n"), "hunter2" in said) == (1, 2, False), said
    assert said.endswith("\nNothing is lost. Once the cause is gone, run this again.\n")

    monkeypatch.delenv("MOVE_TO_URL")
    status, said = vets.runs(COMMAND, "vets", "copy")
    assert (status, "  MOVE_TO_URL: Field required" in said) == (1, True), said
