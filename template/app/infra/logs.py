# Rung's file: advancing to another stage may change it.
"""Logs on stdout: one line for each request, and one format for our lines and libraries' lines."""

import json
import logging
import re
import secrets
import select
import sys
import threading
import time
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, Literal

import structlog
from fastapi import FastAPI
from pydantic_core import PydanticSerializationError, to_json
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import EventDict, Processor

from app.infra import environment
from app.infra.answers import answer_of
from app.infra.database_use import DatabaseUse, this_request

log = structlog.get_logger()

# A load balancer asks these every few seconds, so only their failures are logged.
QUIET_WHEN_WELL = frozenset({"/live", "/ready"})

# An id that a client or proxy sends is part of every log line, so it has safe characters only.
_ACCEPTABLE_ID = re.compile(rb"[\w.:-]{8,128}")

# pydantic, FastAPI and asyncpg end a message with the value that they refuse: a row, for example.
# asyncpg's reason after it stays, unless it repeats the value: a quoted text that is not a type.
_REFUSED = re.compile(
    r"(input_value=|'input': |invalid UUID "
    r"|query argument \$\d+(?: in element #\d+ of executemany\(\) sequence)?: ).*?"
    r"(, input_type=\S+]| \((?:'\w+' object|, got '\w+'|[^()'\n])*\))?$",
    re.M,
)

# Postgres itself names a text that it cannot use: as a number, a time, an enum, a search.
_NOT_CONVERTED = re.compile(
    r'^((?:asyncpg|sqlalchemy)\.[^"\n]*?(?:: |value |time zone ))"(?s:.*?)"'
    r'(?= is out of | not recognized| for "|\Z|\n\n|\n\[SQL|\n[A-Z]+: )',
    re.M,
)

# A terminal obeys them: a path of a request could hide lines, or write to the clipboard.
_CONTROLS = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if n not in b"\t\n"}


class Timestamp:
    """Writes what structlog's TimeStamper does, in a third of its instructions."""

    def __init__(self) -> None:
        self._kept = (0, "")

    def __call__(self, logger: object, method: str, line: EventDict) -> EventDict:
        second, nanoseconds = divmod(time.time_ns(), 10**9)
        known, text = self._kept
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._kept = second, text
        line["timestamp"] = f"{text}.{nanoseconds // 1000:06}Z"
        return line


# Add fields to every line, ours and those of libraries.
ENRICH: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    Timestamp(),
)


class Stdout:
    """Drops a line that cannot be written: the disk is full, or its reader is gone or has stopped.
    An error would end a request, or a task that checks a server, and nobody starts such a task
    again. A wait would stop all requests. Threads may log too."""

    def __init__(self) -> None:
        self.lost = 0
        self._lock = threading.Lock()
        self._is_cut = False
        self._wait_ms = 100
        self._ready = select.poll()
        self._ready.register(1, select.POLLOUT)

    def write(self, text: str) -> None:
        with self._lock:
            self._write(f"\n{text}" if self._is_cut else text)

    def _write(self, text: str) -> None:
        # A pipe that is ready takes 4,096 bytes without a wait: 1,024 characters of UTF-8.
        for start in range(0, len(text), 1024):
            is_ready = self._ready.poll(self._wait_ms)
            # A busy reader takes its next line soon. One that has stopped costs one wait.
            self._wait_ms = 100 if is_ready else 0
            try:
                if not is_ready:
                    raise BlockingIOError
                sys.stdout.write(text[start : start + 1024])
                sys.stdout.flush()
            except OSError:
                self.lost += 1
                self._is_cut |= start > 0
                return
        self._is_cut = False

    def msg(self, message: str) -> None:
        self.write(message + "\n")

    debug = info = warning = error = critical = exception = msg


stdout = Stdout()  # per copy: counts its own lost lines


class LogSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LOG_")

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"
    # From one line of app/infra/process_log.py to the next.
    process_seconds: environment.Seconds = 60

    @property
    def as_json(self) -> bool:
        return self.format == "json" or (self.format == "auto" and not sys.stdout.isatty())


class RequestLog:
    """Logs one line a request, and adds the request's id to its answer and to all its log lines."""

    def __init__(self, app: ASGIApp, *, shows_paths: bool) -> None:
        self.app = app
        self._shows_paths = shows_paths
        self._log = log.bind()  # The module's own logger is built again for each line.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=request_id)
        use = DatabaseUse()
        this_request.set(use)
        answer, send = answer_of(scope, send)
        answer.headers.append((b"x-request-id", request_id.encode()))
        try:
            await self.app(scope, receive, send)
        finally:
            route = getattr(scope.get("route"), "path", None)
            if answer.status >= 400 or route not in QUIET_WHEN_WELL:
                # Never the path in production, because it may name a person.
                is_unknown = self._shows_paths and route is None
                self._log.info(
                    "request",
                    method=scope["method"],
                    **({"path": scope["path"]} if is_unknown else {"route": route}),
                    status=answer.status,
                    duration_ms=round(
                        ((answer.ended_at or time.perf_counter()) - started) * 1000, 1
                    ),
                    db_calls=use.calls,
                    db_ms=round(use.seconds * 1000, 1),
                    db_wait_ms=round(use.wait_seconds * 1000, 1),
                )


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
            return value.decode()
    return secrets.token_hex(16)


def configure(settings: LogSettings, *more: Processor) -> None:
    """`more` can add fields to every line."""
    enrich = (*ENRICH, *more)
    # Tracebacks as text: structlog's dictionaries would show local variables, secrets among them.
    render: list[Processor] = [structlog.processors.format_exc_info]
    if settings.as_json:
        render += [_without_refused_values, structlog.processors.JSONRenderer(_as_json)]
    else:
        console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        render += [_without_controls, console]
    if isinstance(sys.stdout, TextIOWrapper):
        # Otherwise a character that the machine's locale lacks fails the line. JSON is UTF-8.
        encoding = "utf-8" if settings.as_json else None
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    # Not through the standard library: its loggers and formatters cost 50 µs a request more.
    structlog.configure(
        processors=[*enrich, *render],
        logger_factory=lambda *_: stdout,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
    )
    _configure_libraries(settings.level, enrich, render)


def _without_refused_values(logger: object, method: str, line: EventDict) -> EventDict:
    if "exception" in line:
        line["exception"] = _NOT_CONVERTED.sub(r"\1…", _REFUSED.sub(r"\1…\2", line["exception"]))
    return line


def _without_controls(logger: object, method: str, line: EventDict) -> EventDict:
    return {
        name: value.translate(_CONTROLS) if isinstance(value, str) else value
        for name, value in line.items()
    }


def _as_json(line: dict[str, Any], **_: Any) -> str:
    """Takes a fifth of the standard library's time, but refuses text that is not valid UTF-8."""
    try:
        return to_json(line, fallback=repr).decode()
    except PydanticSerializationError:
        return json.dumps(line, default=repr)


def _configure_libraries(
    level: str, enrich: Sequence[Processor], render: Sequence[Processor]
) -> None:
    handler = logging.StreamHandler(stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *enrich],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    # At INFO most libraries log their own details, and httpx whole URLs.
    logging.basicConfig(handlers=[handler], level="WARNING", force=True)
    for known in logging.root.manager.loggerDict.values():
        if isinstance(known, logging.Logger):
            known.disabled = False  # a dictConfig switches off the loggers that it does not name
    logging.getLogger("uvicorn.error").addFilter(_without_address_and_path)
    # Uvicorn has its own handlers, and its access log repeats ours.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
        logger.setLevel(level)


def _without_address_and_path(record: logging.LogRecord) -> bool:
    """Uvicorn logs each WebSocket with its query, in which a browser's page may send a token."""
    if isinstance(record.args, tuple) and '"WebSocket %s"' in str(record.msg):
        record.args = ("a client", "…", *record.args[2:])
    return True


def install(app: FastAPI) -> None:
    settings = environment.read(LogSettings)
    configure(settings)
    app.add_middleware(RequestLog, shows_paths=not settings.as_json)
