# Rung's file: advancing to another stage may change it.
"""Keys of cached answers."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from asyncpg.pgproto import pgproto
from pydantic import BaseModel, Field, computed_field

from app.infra import freshness
from app.infra.cache.entry import NotCacheable, format_of
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from tests.infra.conftest import bare_app


@pytest.fixture(autouse=True)
def only_queries_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "stale_queries", [])
    monkeypatch.setattr("app.infra.cache.cache.stale_queries", freshness.stale_queries)


class Blue(BaseModel):
    shade: int


@max_stale(minutes=1)
async def shades(
    read: Reader, name: str, at: UUID, sizes: list[int], first: int = 10
) -> list[Blue]:
    raise NotImplementedError


def test_keys_are_readable_and_do_not_depend_on_how_arguments_are_passed() -> None:
    at = UUID(int=7)

    key = format_of(shades).key(("sky, or 'sea'", at, [1, 2]), {})

    name, version, arguments = key.split(":")
    assert name == "tests.infra.cache.test_entry.shades"
    assert len(version) == 8
    assert arguments == f"'sky%2C%20or%20%27sea%27',{at},(1,2),10"
    by_name = {"first": 10, "sizes": [1, 2], "at": at}
    assert format_of(shades).key(("sky, or 'sea'",), by_name) == key


def test_a_filter_is_in_the_key_with_its_name() -> None:
    @max_stale(minutes=1)
    async def found(read: Reader, /, **filters: str) -> list[Blue]:
        raise NotImplementedError

    key = format_of(found).key
    assert key((), {"name": "a", "tone": "b"}) == key((), {"tone": "b", "name": "a"})
    assert key((), {"name": "a"}) != key((), {"tone": "a"})


def test_an_id_read_from_postgres_gives_the_same_key() -> None:
    at = UUID(int=7)

    assert format_of(shades).key(("sky", pgproto.UUID(at.bytes), []), {}) == format_of(shades).key(
        ("sky", at, []), {}
    )


def test_keys_differ_when_the_shape_of_the_answer_differs() -> None:
    async def query(read: Reader) -> Blue:
        raise NotImplementedError

    async def changed(read: Reader) -> list[Blue]:
        raise NotImplementedError

    changed.__qualname__ = query.__qualname__
    before, after = max_stale(minutes=1)(query), max_stale(minutes=1)(changed)
    assert format_of(before).name == format_of(after).name
    assert format_of(before).key((), {}) != format_of(after).key((), {})


def test_an_argument_that_cannot_be_part_of_a_key_is_refused() -> None:
    with pytest.raises(NotCacheable, match="it takes a Blue, which cannot be part of a key"):
        format_of(shades).key((Blue(shade=1), UUID(int=7), []), {})


def test_a_query_without_a_return_type_is_refused() -> None:
    @max_stale(minutes=1)
    async def shade(read: Reader):  # type: ignore[no-untyped-def]
        return 1

    with pytest.raises(TypeError, match="must say what it returns"):
        format_of(shade).key((), {})


class Hidden(BaseModel):
    blue: Blue
    light: int | None = Field(None, exclude=True)

    @computed_field
    def twice(self) -> int:
        return 2 * self.blue.shade


def test_an_answer_whose_json_leaves_out_a_field_is_refused() -> None:
    @max_stale(minutes=1)
    async def shade(read: Reader) -> list[Hidden]:
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"shade has @max_stale, and .* leaves out light: "):
        format_of(shade).check()


@pytest.mark.usefixtures("services")
async def test_an_app_without_a_cache_does_not_start_with_an_unusable_return_type() -> None:
    app = bare_app()

    @max_stale(minutes=1)
    async def shade(read: Reader) -> Iterator[Reader]:
        raise NotImplementedError

    with pytest.raises(TypeError, match="shade has @max_stale and must say what it returns"):
        async with app.router.lifespan_context(app):
            pass
