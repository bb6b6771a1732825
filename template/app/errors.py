"""The errors that clients see, and their answers: problem details (RFC 9457)."""

import http.client
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from app.infra.failures import Failure

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

# Where OpenAPI has its schemas.
SCHEMAS = "#/components/schemas/{model}"

NO_JSON = "Send the body as JSON, with the header Content-Type: application/json."

# FastAPI's words for a body that is no text.
UNREADABLE = "There was an error parsing the body"

# For OpenAPI: the header of these answers says when to try again.
RETRY_AFTER = {"Retry-After": {"description": "In seconds", "schema": {"type": "integer"}}}

# A list of 20,000 wrong items would be answered with 2 MB.
MOST_ERRORS = 20


class AppError(Exception):
    """Define a subclass beside the code that raises it. Its docstring is the answer's title."""

    status: ClassVar[int]

    def __init__(self, detail: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers


class NotFound(AppError):
    """Not found"""

    status = 404


class Conflict(AppError):
    """Conflict"""

    status = 409


class Forbidden(AppError):
    """Forbidden"""

    status = 403


class Unprocessable(AppError):
    """The request cannot be processed"""

    status = 422


class InvalidField(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: list[InvalidField] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the errors it may answer with."""
    # With `model`, FastAPI makes a schema for each status of each route, and takes 1 ms for it.
    content = {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS.format(model="Problem")}}}
    return {
        status: ({"headers": RETRY_AFTER} if status in {429, 503} else {}) | {"content": content}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _answer_app_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(Failure, _answer_failure)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(Exception, _answer_unexpected_error)
    _document_problem(app)


def respond(
    status: int,
    title: str,
    detail: Any = None,
    errors: list[InvalidField] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    problem = Problem(title=title, status=status, errors=errors)
    content = problem.model_dump(exclude_none=True)
    if detail is not None:
        content["detail"] = detail
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


async def _answer_app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101  # Starlette declares an Exception
    title = (type(error).__doc__ or "").strip()
    return respond(error.status, title, error.detail, headers=error.headers)


async def _answer_failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, Failure)  # noqa: S101
    if error.status >= 500:
        log.warning("unavailable", reason=str(error))
    return respond(error.status, error.title, headers=dict(error.headers))


async def _answer_unexpected_error(request: Request, error: Exception) -> Response:
    return respond(500, "Something went wrong on our side")  # the log has the details


async def _answer_disconnect(request: Request, error: Exception) -> Response:
    return respond(400, "The client disconnected before it had sent the whole body")


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    status, headers = error.status_code, dict(error.headers or {})
    if status in {204, 304}:  # The client would take a body for the next answer.
        return Response(None, status, headers)
    if error.detail == UNREADABLE and "content-encoding" in request.headers:
        return respond(415, "A compressed body is not supported", "Remove Content-Encoding.")
    if status == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    if not isinstance(error.detail, str):  # FastAPI allows any JSON, and some libraries send it.
        return respond(
            status, http.client.responses.get(status, "Error"), error.detail, headers=headers
        )
    return respond(status, error.detail, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Starlette names only the methods of the first route on the path."""
    allowed = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        for route in request.app.router.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    return ["HEAD", *allowed] if "GET" in allowed else allowed


async def _answer_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [
        InvalidField(field=".".join(map(str, problem["loc"])), message=problem["msg"])
        for problem in error.errors()[:MOST_ERRORS]
    ]
    # The whole body is wrong: empty, no JSON object, or sent as a form.
    detail = NO_JSON if any(invalid.field == "body" for invalid in errors) else None
    return respond(422, "The request is not valid", detail, errors)


def _document_problem(app: FastAPI) -> None:
    """Adds the schema that `problems` refers to."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = Problem.model_json_schema(ref_template=SCHEMAS)
            schema = jsonable_encoder(schema, exclude_none=True)  # as FastAPI writes all others
            added = schema.pop("$defs") | {"Problem": schema}
            components = describe().setdefault("components", {})
            components["schemas"] = dict(sorted((components.get("schemas", {}) | added).items()))
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
