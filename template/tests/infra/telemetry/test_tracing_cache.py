# Rung's file: advancing to another stage may change it.
"""Spans and metrics of the cache, sent to a real receiver of OTLP."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from app.infra.database import ReadSession
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from dev.cache import valkey
from tests.infra.conftest import Serve, bare_app, until
from tests.infra.telemetry.otlp import Receiver


class Product(BaseModel):
    name: str


@max_stale(minutes=5)
async def product_named(read: Reader, name: str) -> Product:
    [row] = await read.fetch("SELECT $1::text AS name FROM pg_class LIMIT 1", name)
    return Product(name=row["name"])


@pytest.fixture
def receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with valkey.running("cache") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        yield receiver


@pytest.mark.usefixtures("services")
async def test_a_lookup_in_the_cache_is_a_child_of_the_request_and_counted(
    receiver: Receiver, serve: Serve
) -> None:
    app = bare_app()

    @app.get("/products/{name}")
    async def product(name: str, read: ReadSession) -> Product:
        return await product_named(read, name)

    async with serve(app) as client:
        await until(lambda: app.state.cache.server.is_reachable)
        for _ in range(2):
            await client.get("/products/tray")

    miss, hit = (span for span in receiver.spans if span.kind == "SERVER")
    assert [span.name.split()[:2] for span in receiver.children(hit)] == [["cache", "get"]]
    get, load = receiver.children(miss)
    assert [span.name.split()[:2] for span in (get, load)] == [["cache", "get"], ["cache", "load"]]
    assert get.name.endswith("product_named")
    assert "SELECT pg_class" in [span.name for span in receiver.children(load)]
    assert "tray" not in repr(receiver.spans)
    counted = {point["cache.result"]: count for point, count in receiver.points("cache.lookups")}
    assert (counted["miss"], counted["hit"]) == (1, 1)
