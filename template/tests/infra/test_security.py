# Rung's file: advancing to another stage may change it.
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Response
from pydantic import BaseModel

from tests.infra.conftest import Serve


class Note(BaseModel):
    text: str


@pytest.fixture
def notes(bare: FastAPI) -> FastAPI:
    @bare.get("/notes")
    async def read() -> None: ...

    @bare.post("/notes")
    async def write(note: Note) -> None: ...

    @bare.put("/notes")
    @bare.patch("/notes")
    @bare.delete("/notes")
    async def change() -> None: ...

    @bare.get("/cached")
    async def cached(response: Response) -> None:
        response.headers["Cache-Control"] = "max-age=60"

    return bare


async def test_every_answer_carries_the_security_headers(notes: FastAPI, serve: Serve) -> None:
    async with serve(notes) as client:
        for path in ("/notes", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["strict-transport-security"] == "max-age=31536000"
            assert headers["x-content-type-options"] == "nosniff"


async def test_an_answer_can_set_a_header_itself(notes: FastAPI, serve: Serve) -> None:
    async with serve(notes) as client:
        headers = (await client.get("/cached")).headers

    assert headers.get_list("cache-control") == ["max-age=60"]


async def test_the_documentation_can_load_its_scripts(notes: FastAPI, serve: Serve) -> None:
    async with serve(notes) as client:
        headers = (await client.get("/docs")).headers

    assert headers.get_list("content-security-policy") == ["frame-ancestors 'none'"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "https://shop.test.evil.test"},
        {"Origin": "https://shop.test", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_write_from_another_site_is_refused(
    notes: FastAPI, serve: Serve, headers: dict[str, str]
) -> None:
    async with serve(notes) as client:
        refused = await client.post("/notes", json={"text": "hi"}, headers=headers)
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await client.get("/notes", headers=headers)).status_code == 200
        for method in ("PUT", "PATCH", "DELETE"):
            assert (await client.request(method, "/notes", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://shop.test"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://shop.test"},
    ],
)
async def test_a_write_from_this_site_or_no_browser_is_let_through(
    notes: FastAPI, serve: Serve, headers: dict[str, str]
) -> None:
    async with serve(notes) as client:
        answer = await client.post("/notes", json={"text": "hi"}, headers=headers)

    assert answer.status_code == 200


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 413)])
async def test_a_body_is_read_up_to_64_kib(
    notes: FastAPI, serve: Serve, size: int, status: int
) -> None:
    async with serve(notes) as client:
        declared = await client.post("/notes", json={"text": "x" * size})
        assert declared.status_code == status

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"text": "'
            for _ in range(size // 1000):
                yield b"x" * 1000
            yield b'"}'

        in_pieces = {"content-type": "application/json"}
        chunked = await client.post("/notes", content=pieces(), headers=in_pieces)
        assert chunked.status_code == status
