# Rung's file: advancing to another stage may change it.
"""Requests from pages on other origins: CORS, and writes with a cookie or with a token."""

import pytest
from fastapi import FastAPI, Response
from httpx import AsyncClient

from app.infra.environment import EnvironmentIncomplete
from app.infra.session_tokens import COOKIE
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app

PAGE = "https://app.example.com"
TOKEN = {"Authorization": "Bearer a-token"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}


@pytest.fixture
def app(services: Services, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("CORS_ORIGINS", f"{PAGE}, http://localhost:5173")
    return with_notes(bare_app())


def with_notes(app: FastAPI) -> FastAPI:
    @app.get("/notes")
    async def read() -> str:
        return "a note"

    @app.post("/notes")
    async def write() -> None: ...

    @app.get("/counted")
    async def counted(response: Response) -> None:
        response.headers["Access-Control-Expose-Headers"] = "X-Total-Count"

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    return app


async def test_a_listed_origin_may_send_a_preflight_and_read(client: AsyncClient) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    preflight = await client.options("/notes", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"]

    for path in ("/notes", "/nowhere", "/broken"):
        answer = await client.get(path, headers={"Origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"content-disposition", "link", "read-after"} <= set(exposed)
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_route_may_expose_more_headers(client: AsyncClient) -> None:
    answer = await client.get("/counted", headers={"Origin": PAGE})

    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-total-count", "etag"} <= {name.lower() for name in exposed}


async def test_a_listed_origin_may_write_with_its_visitors_cookie(client: AsyncClient) -> None:
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "same-site", "Cookie": f"{COOKIE}=x"}
    assert (await client.post("/notes", headers=headers)).status_code == 200


async def test_another_origin_may_not_read(client: AsyncClient) -> None:
    answer = await client.get("/notes", headers={"Origin": "https://elsewhere.example"})

    assert "access-control-allow-origin" not in answer.headers


async def test_a_write_with_a_token_and_no_cookie_passes_from_any_origin(
    client: AsyncClient,
) -> None:
    assert (await client.post("/notes", headers=CROSS_SITE | TOKEN)).status_code == 200


async def test_a_write_with_a_token_and_a_cookie_follows_the_cookies_rules(
    client: AsyncClient,
) -> None:
    both = CROSS_SITE | TOKEN | {"Cookie": f"a=b; {COOKIE}=x"}
    assert (await client.post("/notes", headers=both)).status_code == 403
    assert (await client.post("/notes", headers=CROSS_SITE)).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "//", "https://ü.example", "null", "x" * 9000, "%00"]
)
async def test_a_malformed_origin_is_refused_with_all_headers(
    client: AsyncClient, origin: str
) -> None:
    answer = await client.post("/notes", headers={b"Origin": origin.encode()})

    assert answer.status_code == 403
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_without_the_setting_no_origin_is_allowed(services: Services, serve: Serve) -> None:
    async with serve(with_notes(bare_app())) as client:
        answer = await client.get("/notes", headers={"Origin": PAGE})

    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["capacitor://localhost", "chrome-extension://abcdefgh", "http://[::1]:5173"]
)
async def test_a_page_in_a_mobile_app_or_an_extension_may_be_listed(
    services: Services, serve: Serve, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origin)
    async with serve(with_notes(bare_app())) as client:
        answer = await client.post("/notes", headers=CROSS_SITE | {"Origin": origin})

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("origins", ["*", "app.example.com", f"{PAGE}/", f"{PAGE}/path", "null"])
def test_a_wrong_origin_in_the_setting_stops_the_start(
    services: Services, monkeypatch: pytest.MonkeyPatch, origins: str
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(EnvironmentIncomplete, match=r"CORS_ORIGINS"):
        bare_app()


async def test_each_route_with_get_also_answers_head(client: AsyncClient) -> None:
    for path in ("/notes", "/live", "/ready"):
        head, get = await client.head(path), await client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == get.headers["content-length"]
    assert (await client.head("/nowhere")).status_code == 404
