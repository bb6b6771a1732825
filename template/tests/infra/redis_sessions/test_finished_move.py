# Rung's file: advancing to another stage may change it.
"""Once the moves are finished, their code is not imported, and may be deleted."""

import os
import sys

import pytest

from dev.pytest_plugin import Services
from tests.infra.conftest import bare_app, run_python

SERVE_ONE_REQUEST = """
import asyncio, sys
from httpx import ASGITransport, AsyncClient
from tests.infra.conftest import bare_app

async def serve():
    app = bare_app()
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="https://shop.test") as client,
    ):
        assert (await client.get("/ready")).status_code == 200

asyncio.run(serve())
print(*(name for name in sys.modules if name.startswith("app.infra") and ".move" in name))
"""


def test_nothing_of_a_finished_move_is_imported(services: Services) -> None:
    assert (os.environ["SESSION_STORE"], os.environ["FILES_STORE"]) == ("redis", "s3")

    done = run_python("-c", SERVE_ONE_REQUEST, env={**os.environ, "LOG_LEVEL": "ERROR"})

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("variable", "step", "module"),
    [
        ("SESSION_STORE", "write-both", "app.infra.redis_sessions.move.steps"),
        ("FILES_STORE", "read-both", "app.infra.s3.move.both"),
    ],
)
def test_a_step_of_a_deleted_move_stops_the_start_with_a_reason(
    services: Services, monkeypatch: pytest.MonkeyPatch, variable: str, step: str, module: str
) -> None:
    monkeypatch.setenv(variable, step)
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(SystemExit, match=f"{variable}={step} needs .*/move, which was deleted"):
        bare_app()
