# Rung's file: advancing to another stage may change it.
"""The pages of `make dev`: they need no internet, and hide none of the app's own."""

import os
import re

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from dev import ports, postgres, start_page


def developer(app: FastAPI, host: str = "127.0.0.1:8000") -> AsyncClient:
    transport = ASGITransport(start_page.WithPages(app))
    return AsyncClient(transport=transport, base_url=f"http://{host}")


async def test_the_start_page_says_what_this_stage_is_for(bare: FastAPI) -> None:
    async with developer(bare) as client:
        page = (await client.get("/")).text
    heading = start_page.STAGE.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    assert heading in page
    assert "$" not in page


async def test_the_apps_own_start_page_stays(bare: FastAPI) -> None:
    bare.add_api_route("/", lambda: "ours")
    async with developer(bare) as client:
        assert (await client.get("/")).json() == "ours"


async def test_the_documentation_needs_no_internet(bare: FastAPI) -> None:
    async with developer(bare) as client:
        page = (await client.get("/docs")).text
        assets = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(assets) == 3
        for asset in assets:
            assert asset.startswith("/_dev/")
            assert (await client.get(asset)).status_code == 200


async def test_an_app_without_documentation_has_none_in_development() -> None:
    async with developer(FastAPI(openapi_url=None)) as client:
        assert (await client.get("/docs")).status_code == 404


@pytest.mark.parametrize(("host", "is_told"), [("localhost:8000", True), ("evil.example", False)])
async def test_only_this_machine_is_told_what_the_seed_said(
    bare: FastAPI, monkeypatch: pytest.MonkeyPatch, host: str, is_told: bool
) -> None:
    monkeypatch.setattr(start_page, "seeded", lambda environment: "password <123>")
    async with developer(bare, host) as client:
        page = (await client.get("/")).text
    assert ("password &lt;123&gt;" in page) == is_told


def test_each_server_on_this_machine_is_listed_without_its_password() -> None:
    port = ports.unused()
    environment = {
        "A_URL": f"postgresql://app:secret@127.0.0.1:{port}/app",
        "B_URLS": f"postgresql://app:secret@127.0.0.1:{port}/app,postgresql://a.example:5432/b",
        "C_URL": f"http://localhost:{port}",
        "D": "http://[",
    }
    page = start_page.start_page("Shop & Co", environment, "")
    assert "Shop &amp; Co" in page
    assert "secret" not in page
    assert page.count(f"127.0.0.1:{port}</td><td>does not answer") == 2
    assert f'<a href="http://127.0.0.1:{port}">' in page
    assert "a.example" not in page


def test_variables_of_other_servers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGHOST", "PGOPTIONS", "PGSERVICEFILE"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PGQUEUER_SCHEMA", "queue")
    postgres.forget_other_servers(os.environ)
    assert [name for name in os.environ if name.startswith("PG")] == ["PGQUEUER_SCHEMA"]
