# Rung's file: advancing to another stage may change it.
"""Each request gets the answer that FastAPI's own search for its route would give."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Body, FastAPI, Form, Request, WebSocket
from fastapi.dependencies import utils
from httpx import ASGITransport, AsyncClient, Response
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from app.infra import routes
from tests.infra.test_websockets import opened


def busy_app() -> FastAPI:
    async def tell(request: Request) -> dict[str, object]:
        route = request.scope["route"]
        return {"path": route.path, "name": route.name, "given": request.path_params}

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("plain")

    async def note(text: Annotated[str, Body(embed=True)]) -> str:
        return text

    inner, outer, late = APIRouter(prefix="/inner"), APIRouter(prefix="/outer"), APIRouter()
    inner.add_api_route("/{number:int}", tell, name="numbered")
    inner.add_api_route("/{word}", tell, name="worded")
    outer.add_api_route("", tell, name="list")
    outer.add_api_route("", tell, name="create", methods=["POST"], status_code=201)
    outer.include_router(inner)
    outer.add_api_route("/{rest:path}", tell, name="rest")
    late.add_api_route("/notes", note, methods=["POST"])
    late.add_api_route("/{anything}", tell, methods=["POST"], name="anything")
    late.routes.append(Mount("/files", routes=[Route("/{name}", plain)]))
    late.add_api_route("/files/{name}", tell, name="hidden by the mount")

    app = FastAPI(redirect_slashes=False)
    app.add_api_route("/first", tell, name="direct")
    app.routes.append(Route("/outer/starlette", plain))
    app.include_router(outer)
    app.include_router(late, prefix="/late")
    app.add_api_route("/late/notes", tell, name="after the routers")
    return app


async def answer(app: FastAPI, method: str, path: str, root_path: str = "") -> Response:
    async with AsyncClient(
        transport=ASGITransport(app, root_path=root_path), base_url="https://shop.test"
    ) as client:
        body = {"text": "hello"} if method == "POST" else None
        return await client.request(method, path, json=body)


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_every_request_is_answered_as_by_fastapi_itself(root_path: str) -> None:
    paths = ["/first", "/outer", "/outer/", "/outer/starlette", "/outer/inner/7", "/outer/inner/x"]
    paths += ["/outer/inner/a%2Fb", "/outer/a/b", "/late/notes", "/late/x", "/late/files/a", "/no"]
    paths += ["/openapi.json", "/docs", "//outer", "/outer/inner/%F0%9F"]
    expected, ours = busy_app(), busy_app()
    routes.install(ours)
    statuses = set()
    for path in paths:
        for method in ("GET", "POST", "HEAD", "DELETE", "OPTIONS", "BREW"):
            told = [await answer(app, method, path, root_path) for app in (expected, ours)]
            seen = [(one.status_code, one.headers.raw, one.content) for one in told]
            assert seen[0] == seen[1], f"{method} {path}"
            statuses.add(told[0].status_code)

    assert statuses == {200, 201, 404, 405}


async def test_fastapi_handles_only_the_requests_that_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(utils, "ensure_multipart_is_installed", lambda: None)
    app = busy_app()

    @app.post("/form")
    async def send(text: Annotated[str, Form()]) -> None: ...

    routes.install(app)
    searched = []

    async def search(scope: Scope, receive: Receive, send: Send) -> None:
        searched.append(scope["path"])
        await PlainTextResponse("found")(scope, receive, send)

    monkeypatch.setattr(app.router.middleware_stack, "_otherwise", search)
    assert (await answer(app, "GET", "/outer/inner/7")).json()["given"] == {"number": 7}
    for path in ("/form", "/late/files/a", "/nowhere"):
        await answer(app, "POST", path)
    assert searched == ["/form", "/late/files/a", "/nowhere"]


async def test_the_description_of_the_api_is_written_once_for_each_root_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = busy_app()
    expected = [await answer(app, "GET", "/openapi.json", root_path) for root_path in ("", "/api")]
    routes.install(app)
    first = [await answer(app, "GET", "/openapi.json", root_path) for root_path in ("", "/api")]
    monkeypatch.setattr(app, "openapi", None)
    again = [await answer(app, "GET", "/openapi.json", root_path) for root_path in ("", "/api")]

    seen = [[(one.content, one.headers.raw) for one in some] for some in (expected, first, again)]
    assert seen[0] == seen[1] == seen[2]
    assert expected[0].content != expected[1].content


async def test_a_route_that_is_added_later_is_found() -> None:
    app = busy_app()
    routes.install(app)
    assert (await answer(app, "GET", "/later")).status_code == 404
    app.add_api_route("/later", lambda: "here")

    assert (await answer(app, "GET", "/later")).json() == "here"


async def test_a_path_with_a_number_that_python_refuses_to_read_is_a_404() -> None:
    app = busy_app()
    routes.install(app)

    assert (await answer(app, "GET", f"/outer/inner/{'9' * 5000}")).status_code == 404


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_a_path_with_a_newline_at_its_end_is_a_404(root_path: str) -> None:
    app = busy_app()
    routes.install(app)

    assert (await answer(app, "GET", "/first%0A", root_path)).status_code == 404
    assert (await answer(app, "POST", "/late/notes%0A", root_path)).status_code == 404


async def test_no_websocket_opens_at_a_path_with_a_newline_at_its_end() -> None:
    app = busy_app()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()

    routes.install(app)
    assert (await opened(app, "/chat", {}))[0]["type"] == "websocket.accept"
    assert (await opened(app, "/chat\n", {}))[0]["type"] == "websocket.close"
