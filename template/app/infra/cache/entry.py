# Rung's file: advancing to another stage may change it.
"""How an answer is stored in Redis: its key, its JSON and its position."""

import hashlib
import inspect
import json
import re
import time as clock
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache, cached_property, partial
from typing import Any, NamedTuple, Self, get_type_hints
from urllib.parse import quote
from uuid import UUID

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from app.infra.freshness import StaleQuery
from app.infra.own_writes.log_position import ENCODED, Position, encoded

LONGEST_KEY = 200

# An Entry as Redis stores it, to write and to read.
STORED = b"%b %d %b"
_STORED_PARTS = re.compile(rb"(?P<as_of>%b) (?P<due>\d{1,15}) (?P<body>.*)" % ENCODED, re.DOTALL)


class NotCacheable(Exception):
    """The cache cannot hold this call's arguments in a key, or its answer in JSON."""


class Entry(NamedTuple):
    """It shows every commit before `as_of`, the WAL position from before its read.

    A commit that ends exactly at `as_of` may have been invisible to that read.
    """

    as_of: bytes  # an encoded position
    due: int  # when to refresh it, in milliseconds since 1970
    body: bytes  # JSON; nothing in a tombstone

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """None if the entry is not valid."""
        found = _STORED_PARTS.fullmatch(raw)
        return cls(found["as_of"], int(found["due"]), found["body"]) if found else None

    def shows(self, min_position: Position | None) -> bool:
        return self.body != b"" and (min_position is None or encoded(min_position) < self.as_of)

    def is_due(self) -> bool:
        return clock.time() * 1000 >= self.due


def tombstone(position: Position) -> Entry:
    """Replaces an invalidated entry: only answers that show the position are stored after it."""
    after = Position(position.timeline, position.lsn + 1)
    return Entry(encoded(after), 0, b"")


# An answer without rows has at least one of these values.
ABSENT = re.compile(rb"null|\[\]|\{\}")

# Fields with these names say which page this is. They do not count as content.
PAGING = re.compile(r"cursor|next|prev|before|after|offset|page|limit|size", re.IGNORECASE)


def has_no_rows(body: bytes) -> bool:
    """True for null, [] and an envelope of them: {"articles": [], "next": null, "total": 0}."""
    if not ABSENT.search(body):
        return False
    fields = list(_fields(json.loads(body)))
    absent = [field for field in fields if field in (None, [], {})]
    return absent != [] and all(field in absent or field in (0, "") for field in fields)


def _fields(value: object, name: str = "") -> Iterator[object]:
    if isinstance(value, dict) and value:
        for inner_name, inner in value.items():
            yield from _fields(inner, inner_name)
    elif not (isinstance(value, str | int) and PAGING.search(name)):
        yield value


class AnswerFormat[R]:
    """The keys of a query's answers, and their JSON: a hit and a miss give the same."""

    def __init__(self, query: StaleQuery[..., R]) -> None:
        self._ask = query.ask
        module = query.ask.__module__.removeprefix("app.").removesuffix(".queries")
        self.name = f"{module}.{query.ask.__qualname__}"
        self._signature = inspect.signature(query.ask)
        self._arguments = len(self._signature.parameters) - 1

    def check(self) -> None:
        """Raises TypeError if the query's return type cannot be stored."""
        _ = self._versioned_name

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Raises NotCacheable for an argument that cannot be part of a key."""
        if kwargs or len(args) != self._arguments:
            bound = self._signature.bind(None, *args, **kwargs)
            bound.apply_defaults()
            # With their names, because of **filters.
            args = (*bound.args[1:], *sorted(bound.kwargs.items()))
        text = ",".join([_TEXT.get(type(value), self._text)(value) for value in args])
        if len(text) > LONGEST_KEY:
            text = hashlib.sha256(text.encode()).hexdigest()
        return f"{self._versioned_name}:{text}"

    def encode(self, answer: R) -> bytes:
        """Raises NotCacheable if JSON cannot hold the answer, or if a validator or a serializer of
        its type would change it."""
        try:
            # By field name, because `decode` reads it by field name. Clients may see aliases.
            json_of = partial(self._adapter.dump_json, by_alias=False, round_trip=True)
            body = json_of(answer)
            is_the_same = json_of(self.decode(body)) == body
        except Exception as error:  # bytes that are no text, or a validator that expects no JSON
            kind = type(error).__name__  # Never its message, which may hold values.
            raise NotCacheable(
                f"JSON cannot hold an answer ({kind}), so it is not cached"
            ) from error
        if not is_the_same:
            raise NotCacheable(
                "an answer changes when it is read from its JSON, so it is not cached"
            )
        return body

    def decode(self, body: bytes) -> R:
        """Raises ValidationError."""
        return self._adapter.validate_json(body, by_alias=False, by_name=True)

    @cached_property
    def _versioned_name(self) -> str:
        """With a hash of the answer's shape, so that other versions of the code do not find it."""
        schema = json.dumps(self._adapter.json_schema(by_alias=False), sort_keys=True)
        return f"{self.name}:{hashlib.sha256(schema.encode()).hexdigest()[:8]}"

    @cached_property
    def _adapter(self) -> TypeAdapter[R]:
        try:
            adapter = TypeAdapter(get_type_hints(self._ask, include_extras=True)["return"])
            read = _fields_in(adapter.json_schema(by_alias=False))
            written = _fields_in(adapter.json_schema(by_alias=False, mode="serialization"))
        except (KeyError, NameError, PydanticUserError) as error:
            raise TypeError(
                f"{self.name} has @max_stale and must say what it returns, as a type that"
                f" pydantic can turn into JSON and back: {error}"
            ) from error
        for of, fields in read.items():
            if lost := fields - written.get(of, fields):
                raise TypeError(
                    f"{self.name} has @max_stale, and the JSON of its answer leaves out"
                    f" {', '.join(sorted(lost))}: a cached answer would lack it. Return a type"
                    " without excluded fields."
                )
        return adapter

    def _text(self, value: object) -> str:
        if isinstance(value, Enum):
            return self._text(value.value)
        if isinstance(value, list | tuple):
            return f"({','.join(map(self._text, value))})"
        for base in type(value).__mro__:  # asyncpg's UUID is a subclass
            if convert := _TEXT.get(base):
                return convert(value)
        raise NotCacheable(
            f"it takes a {type(value).__name__}, which cannot be part of a key: pass ids, texts,"
            " numbers, dates, or lists of them"
        )


def _fields_in(schema: dict[str, Any]) -> dict[str, set[str]]:
    """The fields of each model in the schema, by the model's name."""
    parts = {"": schema, **schema.get("$defs", {})}
    return {of: set(part["properties"]) for of, part in parts.items() if "properties" in part}


@cache  # per copy: the same in all
def format_of(query: StaleQuery[..., Any]) -> AnswerFormat[Any]:
    return AnswerFormat(query)


# Texts are quoted, so that no part of them looks like another argument.
_TEXT: dict[type, Callable[[Any], str]] = {
    str: lambda text: f"'{quote(text, safe='')}'",
    UUID: str,
    int: str,
    float: repr,
    bool: str,
    Decimal: str,
    date: date.isoformat,
    datetime: datetime.isoformat,
    time: time.isoformat,
    timedelta: str,
    type(None): str,
}
