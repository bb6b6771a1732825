# Rung's file: advancing to another stage may change it.
"""Finds a request's route in one pass: FastAPI looks through included routers twice."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from fastapi import FastAPI, params
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send


class Candidate(NamedTuple):
    match: Callable[[str], Any]
    methods: frozenset[str]
    convertors: dict[str, Any]
    endpoint: Any
    route: BaseRoute
    app: ASGIApp | None  # None if FastAPI itself must find and answer it


class RoutesInOnePass:
    """Runs before FastAPI's router, and calls the same route that FastAPI would find first.

    FastAPI handles everything else: an unknown path, another method, a form, a mount, a websocket.
    """

    def __init__(self, app: FastAPI) -> None:
        self._router = app.router
        self._otherwise = app.router.middleware_stack
        self._candidates: list[Candidate] = []
        self._not_yet_built = self._build()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette would find the route of /session for /session%0A too, but a proxy's rule for
        # /session would not apply.
        if scope.get("path", "").endswith("\n"):
            await self._router.not_found(scope, receive, send)
            return
        if scope["type"] == "http" and not scope.get("root_path"):
            path, method = scope["path"], scope["method"]
            candidates = chain(self._candidates, self._not_yet_built)
            for match, methods, convertors, endpoint, route, app in candidates:
                if method in methods and (matched := match(path)):
                    if app is None:
                        break
                    given = matched.groupdict()
                    try:
                        scope["path_params"] = {
                            name: convertors[name].convert(value) for name, value in given.items()
                        }
                    except ValueError:  # Python makes no number of 5,000 digits
                        raise HTTPException(404) from None
                    scope["router"], scope["route"] = self._router, route
                    scope["endpoint"] = endpoint
                    await app(scope, receive, send)
                    return
        await self._otherwise(scope, receive, send)

    def _build(self) -> Iterator[Candidate]:
        # Builds one router at a time, when a request first reaches it, because FastAPI takes 1 ms
        # for each route. All routes exist before the first request.
        for candidate in _candidates(iter_route_contexts(self._router.routes)):
            self._candidates.append(candidate)  # per copy: the same in all
            yield candidate


ANY = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"})


def _candidates(contexts: Iterable[RouteContext]) -> Iterable[Candidate]:
    for context in contexts:
        route = context.original_route
        if isinstance(route, APIWebSocketRoute):
            continue
        if not hasattr(context, "path_regex"):
            return  # The route may match any path, and it comes before the others.
        is_ours = isinstance(route, APIRoute) and not _is_form(context.body_field)
        yield Candidate(
            context.path_regex.match,
            frozenset(context.methods or ()) if is_ours else ANY,
            context.param_convertors,
            context.endpoint,
            route,
            context.app if is_ours else None,
        )


def _is_form(body: Any) -> bool:
    return body is not None and isinstance(body.field_info, params.Form)


def _keep_openapi(route: Route) -> None:
    """Serves the same bytes again: writing the JSON blocked all other requests for 2 ms. A later
    change of `app.openapi_schema` does not show."""
    kept: dict[str, bytes] = {}

    async def openapi(request: Request) -> Response:
        root_path = request.scope.get("root_path", "")
        if root_path not in kept:
            answer = await route.endpoint(request)
            kept[root_path] = answer.body  # per copy: the same in all
        return Response(kept[root_path], media_type="application/json")

    route.app = request_response(openapi)


def install(app: FastAPI) -> None:
    app.router.middleware_stack = RoutesInOnePass(app)
    for route in app.routes:
        if type(route) is Route and route.path == app.openapi_url:
            _keep_openapi(route)
