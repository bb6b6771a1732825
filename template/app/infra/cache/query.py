# Rung's file: advancing to another stage may change it.
import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, get_type_hints
from urllib.parse import quote
from uuid import UUID

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.own_writes.visits import ReadYourWrites
from app.infra.reads import Reader

if TYPE_CHECKING:
    from app.infra.cache.cache import Cache

LONGEST_KEY = 200

# All of the code, by the time that an app starts.
promised: list["CachedQuery[..., Any]"] = []

# None also within what the cache itself asks for.
cache_of_this_visit: ContextVar["Cache | None"] = ContextVar("cache", default=None)


class CachedQuery[**P, R]:
    """A query with @max_stale: its answers are kept in the cache, if this process has one.

    They are kept as JSON of the declared return type, so a hit and a miss give the same.
    """

    def __init__(
        self, query: Callable[Concatenate[Reader, P], Awaitable[R]], max_stale: timedelta
    ) -> None:
        self.ask = query
        self.max_stale = max_stale
        module = query.__module__.removeprefix("app.").removesuffix(".queries")
        self.name = f"{module}.{query.__qualname__}"
        self._signature = inspect.signature(query)
        self._arguments = len(self._signature.parameters) - 1
        update_wrapper(self, query)
        # Who has written must be known by it for as long as an older answer may be kept.
        ReadYourWrites.remembered = max(ReadYourWrites.remembered, max_stale)
        promised.append(self)  # per copy: the same in all, for they run the same code

    def check(self) -> None:
        """Raises TypeError for what it returns; before the first request rather than in it."""
        _ = self._versioned_name

    def __call__(self, read: Reader, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        found = cache_of_this_visit.get()
        if found is None:
            return self.ask(read, *args, **kwargs)
        return found.read(self, read, args, kwargs)

    def invalidate(self, write: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Let nobody get the answer for these arguments that was kept before `write` commits.

        Takes effect with the commit. It shortens what others may still see and promises nothing:
        when the cache is away, `max_stale` holds. Who wrote sees it in any case. Outside of a
        request, in a script say, there is no cache and this does nothing.
        """
        if found := cache_of_this_visit.get():
            found.forget_after(write.sync_session, self.key(args, kwargs))

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Raises TypeError for an argument that cannot be part of a key."""
        if kwargs or len(args) != self._arguments:
            bound = self._signature.bind(None, *args, **kwargs)
            bound.apply_defaults()
            args = (*bound.args[1:], *bound.kwargs.values())
        text = ",".join([self._spelled(value) for value in args])
        if len(text) > LONGEST_KEY:
            text = hashlib.sha256(text.encode()).hexdigest()
        return f"{self._versioned_name}:{text}"

    def encode(self, answer: R) -> bytes:
        # By the fields' own names, as they are read again, whatever aliases clients are shown.
        return self._answers.dump_json(answer, by_alias=False, round_trip=True)

    def decode(self, body: bytes) -> R:
        """Raises ValidationError."""
        return self._answers.validate_json(body, by_alias=False, by_name=True)

    @cached_property
    def _versioned_name(self) -> str:
        """With the shape of the answer: what another version of the code has kept is not found."""
        schema = json.dumps(self._answers.json_schema(by_alias=False), sort_keys=True)
        return f"{self.name}:{hashlib.sha256(schema.encode()).hexdigest()[:8]}"

    @cached_property
    def _answers(self) -> TypeAdapter[R]:
        try:
            adapter = TypeAdapter(get_type_hints(self.ask, include_extras=True)["return"])
            adapter.json_schema(by_alias=False)
        except (KeyError, NameError, PydanticUserError) as error:
            raise TypeError(
                f"{self.name} has @max_stale and must say what it returns, as a type that"
                f" pydantic can turn into JSON and back: {error}"
            ) from error
        return adapter

    def _spelled(self, value: object) -> str:
        spell = _SPELLING.get(type(value))
        if spell:
            return spell(value)
        if isinstance(value, Enum):
            return self._spelled(value.value)
        if isinstance(value, list | tuple):
            return f"({','.join(map(self._spelled, value))})"
        for base in type(value).__mro__:  # Ids that asyncpg has read are a UUID of its own.
            if spell := _SPELLING.get(base):
                return spell(value)
        raise TypeError(
            f"{self.name} has @max_stale, and {value!r} cannot be part of its key: pass ids, texts,"
            " numbers, dates, or lists of them"
        )


# Texts are quoted, so that nothing in them looks like another argument.
_SPELLING: dict[type, Callable[[Any], str]] = {
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
