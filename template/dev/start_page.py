# Rung's file: advancing to another stage may change it.
"""Pages of `make dev`: a start page at /, and the API's documentation without the internet."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from dev import data, postgres

PAGE = Path(__file__).with_name("start_page.html")
STAGE = postgres.REPOSITORY / "docs" / "stage.md"
ASSETS = "/_dev/assets"
VERDICT = postgres.REPOSITORY / ".dev" / "doctor.json"
NOT_YET = "It has not run yet. Send the app requests, then run make doctor."
SERVER = re.compile(r"(\w+)://([^/@\s]*@)?(?:127\.0\.0\.1|localhost):(\d{1,5})\b")


class WithPages:
    """The app, with these pages at paths where the app has none."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._pages = Router(list(_pages(app)), default=app, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._pages if scope["type"] == "http" else self._app
        await answer(scope, receive, send)


def _pages(app: FastAPI) -> Iterator[BaseRoute]:
    async def start(request: Request) -> HTMLResponse:
        # A stranger may have pointed another name to this machine.
        secret = seeded(os.environ) if data.is_here(request) else ""
        return HTMLResponse(start_page(app.title, os.environ, secret))

    async def docs(request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=f"{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )

    yield from data.pages(app.title)
    if not _has(app, "/"):
        yield Route("/", start)
    if app.openapi_url and app.docs_url:
        yield Route(app.docs_url, docs)
        yield Mount(ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))


def _has(app: FastAPI, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.router.routes)


def start_page(title: str, environment: Mapping[str, str], secret: str) -> str:
    heading, _, text = STAGE.read_text(encoding="utf-8").partition("# ")[2].partition("\n\n")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        heading=escape(heading),
        purpose=escape(text.partition("\n\n")[0]),
        servers="".join(_row(*server) for server in servers(environment)),
        secret=f"<p>{escape(secret)}</p>" if secret else "",
        doctor=escape(doctor(datetime.now(UTC))),
        parts="".join(_parts(environment)),
    )


def _parts(environment: Mapping[str, str]) -> Iterator[str]:
    """Parts that folders of dev/ add to the page, if their variables are set."""
    for file in sorted(PAGE.parent.glob(f"*/{PAGE.name}")):
        part = Template(file.read_text(encoding="utf-8"))
        if all(environment.get(name) for name in part.get_identifiers()):
            yield part.substitute({name: escape(value) for name, value in environment.items()})


def doctor(now: datetime) -> str:
    """The last verdict of `make doctor`, and its age."""
    try:
        found = json.loads(VERDICT.read_text(encoding="utf-8"))
        age, verdict = now - datetime.fromisoformat(found["at"]), found["verdict"]
        said = f"{verdict['text'][:1].upper()}{verdict['text'][1:]}: {verdict['do']}"
    except (OSError, ValueError, KeyError, TypeError):
        return NOT_YET
    minutes = int(age.total_seconds() // 60)
    for size, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        if count := minutes // size:
            return f"{said} ({count} {name}{'s' if count > 1 else ''} ago)."
    return f"{said} (just now)."


def servers(environment: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """The variable, scheme and port of each server on this machine in the app's environment."""
    for name, value in sorted(environment.items()):
        for scheme, _, port in SERVER.findall(value):
            yield name, scheme, int(port)


def _row(name: str, scheme: str, port: int) -> str:
    where = f"127.0.0.1:{port}"
    if scheme == "http":
        where = f'<a href="http://{where}">{where}</a>'
    with socket.socket() as client:
        client.settimeout(1)
        is_there = client.connect_ex(("127.0.0.1", port)) == 0
    state = "runs" if is_there else "does not answer"
    return f"<tr><td>{escape(name)}</td><td>{where}</td><td>{state}</td></tr>"


def seeded(environment: Mapping[str, str]) -> str:
    """The output of the seed that filled this repository's own database."""
    folder = postgres.own_server(environment.get("DATABASE_URL", ""))
    said = folder / "seeded" if folder else None
    return said.read_text(encoding="utf-8").strip() if said and said.exists() else ""


def keep_seeded(environment: Mapping[str, str], said: str) -> None:
    """In the folder of the database, so that both are deleted together."""
    if folder := postgres.own_server(environment.get("DATABASE_URL", "")):
        file = folder / "seeded"
        file.touch(mode=0o600)
        file.write_text(said, encoding="utf-8")
