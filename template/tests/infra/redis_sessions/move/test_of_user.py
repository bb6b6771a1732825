# Rung's file: advancing to another stage may change it.
"""The row of the logged-in user, at each step of the sessions' move."""

import pytest

from app.infra.redis_sessions.settings import Step
from tests.infra.conftest import Serve
from tests.infra.test_of_user import ADA, NOBODYS, ask, name_app, named


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("step", Step)
async def test_each_step_finds_the_row(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    monkeypatch.setenv("SESSION_STORE", step)
    async with serve(name_app()) as client:
        assert await ask(client) == 401
        await client.post(f"/login/{ADA}")
        # Write-both finds the session in Postgres, and then the row.
        calls = 2 if step is Step.WRITE_BOTH else 1
        assert await ask(client) == {"found": named(ADA), "calls": calls}
        await client.post(f"/login/{NOBODYS}")
        assert (await ask(client))["found"] is None
        await client.post("/logout")
        assert await ask(client) == 401
