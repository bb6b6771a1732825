# Rung's file: advancing to another stage may change it.
"""The doctor in front of a real PgBouncer."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from app.infra.doctor.finding import CapabilityEvidence, Missing, Window
from app.infra.doctor.rules import judge
from app.infra.pooling.doctor import NAME, PGBOUNCER, PgBouncerSeen, clients_run_out, look
from dev.pooling import pgbouncer
from dev.pooling.pgbouncer import PgBouncer
from dev.pytest_plugin import Services
from tests.infra.conftest import until
from tests.infra.doctor.test_rules import BUSY, READS, evidence, judged_without

WELL = {
    "waiting_samples": 0.0,
    "waiting": 0.0,
    "longest_wait_s": 0.0,
    "clients": 12.0,
    "most_clients": 5000,
    "servers_active": 1.0,
    "servers_idle": 4.0,
    "transactions": 300,
    "wait_ms": 0.0,
}
WAITING = {"waiting_samples": 1.0, "waiting": 6.0}


@pytest.fixture
def bouncer(
    services: Services, installed: None, pooled: Callable[[str], None]
) -> Iterator[PgBouncer]:
    sizes = {"default_pool_size": 2, "reserve_pool_size": 0, "query_wait_timeout": 60}
    with pgbouncer.running(services.database_url, **sizes) as bouncer:
        pooled(bouncer.url)
        yield bouncer


@pytest.fixture
def pooled(services: Services, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The app's environment with a pooler at this URL."""

    def lead_to(url: str) -> None:
        monkeypatch.setenv("DATABASE_POOLED", "true")
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("DATABASE_READ_URL", f"{url}_read")
        monkeypatch.setenv("DATABASE_DIRECT_URL", services.database_url)

    return lead_to


async def test_a_pause_that_nobody_has_ended_is_named(bouncer: PgBouncer) -> None:
    connection = await asyncpg.connect(bouncer.url, statement_cache_size=0)

    async def asks() -> None:
        while True:
            await connection.fetch("SELECT 1")

    async def is_paused() -> bool:
        found = await look(Window(0.1, 8))
        assert found
        assert isinstance(found.seen, PgBouncerSeen)
        return found.seen.waiting > 0 and not found.seen.servers_active + found.seen.servers_idle

    asking = asyncio.create_task(asks())
    bouncer.signal(signal.SIGUSR1)
    await until(is_paused)
    found = await look(Window(2, 8))
    bouncer.signal(signal.SIGUSR2)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    connection.terminate()

    assert found
    assert found.seen
    capabilities = {NAME: found.seen.model_dump()}
    verdict = judge(evidence(stage=2, capabilities=capabilities)).verdict
    assert (verdict.rule, "kill -USR2" in verdict.do) == ("pooler", True)


@asynccontextmanager
async def clients(url: str, number: int) -> AsyncGenerator[None]:
    """Runs clients that hold a server connection again and again. All have begun at the yield."""

    async def hold(connection: asyncpg.Connection) -> None:
        while True:
            await connection.fetch("SELECT pg_sleep(0.5)")

    connections = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(number)]
    holding = [asyncio.create_task(hold(one)) for one in connections]
    try:
        yield
    finally:
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        for connection in connections:
            connection.terminate()


def verdict(capability: CapabilityEvidence | None, **seen: Any) -> str:
    assert capability
    assert capability.seen
    found = evidence(stage=2, capabilities={NAME: capability.seen.model_dump()}, **seen)
    return judge(found).verdict.rule


@pytest.mark.slow
async def test_clients_that_wait_in_the_pooler_are_seen(bouncer: PgBouncer) -> None:
    async with clients(bouncer.url, 8):
        capability = await look(Window(2, 8))

    assert verdict(capability) == "pooler"
    assert capability
    assert isinstance(capability.seen, PgBouncerSeen)
    assert capability.seen.clients == 8
    # Six, as two are served. On a busy machine a client is late with its next statement.
    assert capability.seen.waiting >= 2
    assert capability.seen.transactions > 0
    assert capability.seen.wait_ms > 0


@pytest.mark.slow
async def test_a_pooler_without_waiting_clients_is_healthy(bouncer: PgBouncer) -> None:
    async with clients(bouncer.url, 1):
        capability = await look(Window(1, 8))

    assert verdict(capability) == "stay"


async def test_without_a_pooler_the_doctor_reports_nothing_about_one(services: Services) -> None:
    assert await look(Window(1, 8)) is None


@pytest.mark.slow
async def test_a_role_that_may_not_read_the_console_is_told_which_setting_to_change(
    services: Services, installed: None, pooled: Callable[[str], None]
) -> None:
    with pgbouncer.running(services.database_url, stats_users="somebody") as bouncer:
        pooled(bouncer.url)
        with pytest.raises(Missing, match=r"^[^\n]+$") as missing:
            await look(Window(1, 8))

    assert "stats_users" in missing.value.remedy


async def test_a_console_that_cannot_be_reached_is_a_missing_source(
    pooled: Callable[[str], None],
) -> None:
    pooled("postgresql://app:secret@127.0.0.1:1/app")

    with pytest.raises(Missing, match="cannot be reached"):
        await look(Window(1, 8))


async def test_a_pooler_without_a_console_is_a_missing_source(
    services: Services, pooled: Callable[[str], None]
) -> None:
    """A real Postgres, whose database `pgbouncer` does not exist."""
    pooled(services.database_url.replace("127.0.0.1", "localhost"))

    with pytest.raises(Missing, match=r"^[^\n]+$"):
        await look(Window(1, 8))


@pytest.mark.parametrize(
    "zone", ["eu-central-1.rds.amazonaws.com", "cn-north-1.rds.amazonaws.com.cn"]
)
async def test_rds_proxy_is_recognized_by_its_name_and_hides_no_verdict(
    pooled: Callable[[str], None], zone: str
) -> None:
    pooled(f"postgresql://app:secret@shop-production-app.proxy-c7f1.{zone}:5432/app")

    told = await look(Window(1, 8))

    assert told
    [skipped] = told.skipped
    assert (skipped.source, skipped.why) == ("RDS Proxy", "it has no console")
    assert "CloudWatch" in skipped.remedy
    found = evidence(stage=2, database=BUSY | {"statements": READS}, skipped=told.skipped)
    assert judge(found).verdict.rule == "replicas"


@pytest.mark.parametrize(
    ("seen", "changes", "rule"),
    [
        ({}, {}, "stay"),
        (WAITING, {}, "pooler"),
        ({"clients": 4900}, {}, "pooler"),
        # They wait because Postgres is busy, so a larger pool would make it worse.
        (WAITING, {"database": BUSY | {"statements": READS}, "stage": 2}, "replicas"),
    ],
)
def test_the_verdict_is_the_cause(seen: dict[str, Any], changes: dict[str, Any], rule: str) -> None:
    found = evidence(capabilities={NAME: WELL | seen}, **changes)

    assert judge(found).verdict.rule == rule


@pytest.mark.parametrize("rule", PGBOUNCER.rules, ids=lambda rule: rule.__name__)
def test_without_the_rule_the_case_is_judged_wrongly(rule: Any) -> None:
    seen = {"clients": 4900} if rule is clients_run_out else WAITING

    assert judged_without(rule, evidence(capabilities={NAME: WELL | seen})) == "stay"
