import gzip

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from httpx import AsyncClient

from app.errors import problems
from app.requests import RequestBody


async def test_an_unexpected_error_shows_no_details(app: FastAPI, client: AsyncClient) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password of the database is hunter2")

    answer = await client.get("/broken")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert answer.json() == {
        "type": "about:blank",
        "title": "Something went wrong on our side",
        "status": 500,
    }


class Table(StreamingResponse):
    media_type = "text/csv"


async def test_an_export_is_described_with_problem_details_for_its_errors(app: FastAPI) -> None:
    @app.get("/export", response_class=Table, responses=problems(401))
    async def export() -> Table:
        return Table(iter("a,b"))

    answers = app.openapi()["paths"]["/export"]["get"]["responses"]

    assert list(answers["200"]["content"]) == ["text/csv"]
    assert list(answers["401"]["content"]) == ["application/problem+json"]


async def test_an_unknown_path_is_answered_with_problem_details(client: AsyncClient) -> None:
    answer = await client.get("/nowhere")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {"type": "about:blank", "title": "Not Found", "status": 404}


async def test_a_wrong_method_is_answered_with_the_allowed_methods(client: AsyncClient) -> None:
    answer = await client.put("/products")

    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "HEAD, GET, POST"


async def test_a_compressed_body_is_an_unsupported_one(client: AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post("/tokens", content=gzip.compress(b"{}"), headers=headers)

    assert answer.status_code == 415
    assert answer.json()["detail"] == "Remove Content-Encoding."


async def test_an_http_exception_may_have_any_json_as_its_detail(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.get("/picky")
    async def refuse() -> None:
        raise HTTPException(400, {"code": "TOO_SHORT", "least": 3})

    answer = await client.get("/picky")

    assert answer.status_code == 400
    assert answer.json()["title"] == "Bad Request"
    assert answer.json()["detail"] == {"code": "TOO_SHORT", "least": 3}


async def test_an_answer_that_may_have_no_body_has_none(app: FastAPI, client: AsyncClient) -> None:
    @app.get("/unchanged")
    async def unchanged() -> None:
        raise HTTPException(304, headers={"ETag": '"7"'})

    answer = await client.get("/unchanged")

    assert answer.status_code == 304
    assert answer.headers["etag"] == '"7"'
    assert answer.content == b""


async def test_a_body_that_is_not_json_is_answered_with_problem_details(
    client: AsyncClient,
) -> None:
    answer = await client.post(
        "/session", content=b"{not json", headers={"content-type": "application/json"}
    )

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_without_the_type_of_json_is_answered_with_what_to_send(
    client: AsyncClient,
) -> None:
    """As `curl -d` sends it."""
    answer = await client.post("/session", data={"email": "ada@example.com"})

    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]


async def test_a_body_that_is_too_large_is_answered_with_problem_details(
    client: AsyncClient,
) -> None:
    answer = await client.post("/session", content=b" " * 70_000)

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


class Measured(RequestBody):
    grams: float
    sizes: list[int]


@pytest.fixture
def scales(app: FastAPI) -> FastAPI:
    @app.post("/scales")
    async def weigh(measured: Measured) -> Measured:
        return measured

    return app


@pytest.mark.parametrize("grams", ["NaN", "Infinity", "-1e400"])
async def test_a_number_that_json_does_not_have_is_refused(
    scales: FastAPI, client: AsyncClient, grams: str
) -> None:
    headers = {"content-type": "application/json"}
    body = '{"grams": ' + grams + ', "sizes": []}'

    answer = await client.post("/scales", content=body, headers=headers)

    assert answer.status_code == 422


class Label(RequestBody):
    text: str


async def test_a_text_with_half_a_character_is_refused(app: FastAPI, client: AsyncClient) -> None:
    @app.post("/labels")
    async def write(label: Label) -> Label:
        return label

    headers = {"content-type": "application/json"}
    answer = await client.post("/labels", content=rb'{"text": "\ud800"}', headers=headers)

    assert answer.status_code == 422


async def test_an_answer_names_only_the_first_of_many_errors(
    scales: FastAPI, client: AsyncClient
) -> None:
    answer = await client.post("/scales", json={"grams": 1.5, "sizes": [""] * 15_000})

    assert answer.status_code == 422
    fields = [error["field"] for error in answer.json()["errors"]]
    assert fields == [f"body.sizes.{n}" for n in range(20)]
