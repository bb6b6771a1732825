# Rung's file: advancing to another stage may change it.
"""The doctor beside a real streaming replica."""

import signal
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from app.infra.doctor.finding import CapabilityEvidence, Window
from app.infra.doctor.rules import judge
from app.infra.replicas.doctor import NAME, REPLICAS, STATEMENTS, ReplicasSeen, look
from tests.infra.doctor.test_rules import BUSY, READS, evidence, judged_without, scan, statement
from tests.infra.replicas.replication import Server, always_reading

pytestmark = pytest.mark.usefixtures("settings")

READ = "SELECT count(*) FROM pg_class WHERE relname = $1"


@pytest.fixture
def urls(replica: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)


def seen(capability: CapabilityEvidence | None) -> ReplicasSeen:
    assert capability
    assert isinstance(capability.seen, ReplicasSeen)
    return capability.seen


@pytest.mark.slow
@pytest.mark.usefixtures("urls")
async def test_reads_on_the_replica_are_seen_and_their_statements_counted(
    primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no lag.
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "60")
    await primary.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    await replica.becomes("EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')")
    async with always_reading(replica, READ, "notes"):
        capability = await look(Window(8, 15))

    assert seen(capability).replicas[0].left_out == 0
    assert seen(capability).reads
    assert capability
    [reader] = capability.readers
    # On a busy machine a question of the driver may have taken longer.
    assert READ in [one.sql for one in reader.statements or ()]
    assert not capability.skipped
    assert str(replica.port) not in seen(capability).model_dump_json()


@pytest.mark.slow
@pytest.mark.usefixtures("urls")
async def test_a_silent_replica_is_named(replica: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.infra.replicas.replicas.SILENCE_SECONDS", 1)
    monkeypatch.setenv("DATABASE_CONNECT_SECONDS", "2")
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    replica.signal(signal.SIGSTOP)
    try:
        capability = await look(Window(6, 8))
    finally:
        replica.signal(signal.SIGCONT)

    assert capability
    assert not seen(capability).reads
    found = evidence(stage=2, capabilities={NAME: seen(capability).model_dump()})
    assert judge(found).verdict.rule == "replica-behind"
    assert [one.source for one in capability.skipped] == [STATEMENTS]


@pytest.mark.slow
@pytest.mark.usefixtures("urls")
async def test_behind_a_pooler_its_statements_need_another_url(
    primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = primary.url.replace("127.0.0.1", "localhost")
    for name, value in (("READ_URL", elsewhere), ("DIRECT_URL", elsewhere), ("POOLED", "true")):
        monkeypatch.setenv(f"DATABASE_{name}", value)
    # Replaces the pooler that leads to the servers. This test has none.
    quiet = nullcontext(SimpleNamespace(replicas=()))
    monkeypatch.setattr("app.infra.replicas.doctor.Replicas", lambda *_: quiet)

    capability = await look(Window(1, 8))

    assert capability
    [skipped] = capability.skipped
    assert "DATABASE_REPLICA_DIRECT_URLS" in skipped.remedy

    monkeypatch.setenv("DATABASE_REPLICA_DIRECT_URLS", replica.url)
    capability = await look(Window(1, 8))

    assert capability
    assert len(capability.readers) == 1


async def test_without_replicas_there_is_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_REPLICA_URLS", raising=False)

    assert await look(Window(3, 8)) is None


def reader(**changes: Any) -> dict[str, Any]:
    return {**evidence().model_dump()["database"], **changes}


BEHIND = {NAME: {"replicas": [{"left_out": 1.0, "behind_s": 12.0}]}}
UNUSED = {NAME: {"replicas": [{"left_out": 0.0, "behind_s": 0.0}], "reads": False}}
BUSY_PRIMARY = BUSY | {"statements": READS}
BUSY_READER = [reader(**BUSY, statements=READS)]


@pytest.mark.parametrize(
    ("changes", "rule", "stage"),
    [
        ({"capabilities": BEHIND}, "replica-behind", None),
        # The primary is busy because the replica gets no reads, not because a cache is missing.
        (
            {"capabilities": BEHIND, "database": BUSY_PRIMARY, "process": {"stale_repeats": 900}},
            "replica-behind",
            None,
        ),
        ({"capabilities": UNUSED, "database": BUSY_PRIMARY}, "replica-unused", None),
        ({"capabilities": UNUSED}, "stay", None),  # so the variables may come before the reads
        ({"readers": BUSY_READER, "process": {"stale_repeats": 900}}, "cache", 3),
        ({"readers": BUSY_READER}, "replicas", None),
        ({"readers": BUSY_READER, "process": {"stale_reads": 0}}, "not-known", None),
        # The scan runs on the replica alone. Without its statements the verdict would be "cache".
        (
            {
                "readers": [reader(**BUSY, statements=[statement(scans=[scan()])])],
                "process": {"stale_repeats": 900},
            },
            "index",
            None,
        ),
        ({"readers": [reader()]}, "stay", None),
    ],
)
def test_the_verdict_is_the_cause(changes: dict[str, Any], rule: str, stage: int | None) -> None:
    found = judge(evidence(stage=2, **changes)).verdict

    assert (found.rule, found.advance_to) == (rule, stage)


def test_a_replica_without_an_answer_is_not_told_to_be_built_again() -> None:
    silent = {NAME: {"replicas": [{"left_out": 1.0, "behind_s": None}]}}

    found = judge(evidence(stage=2, capabilities=silent)).verdict

    assert "out of rotation" in found.do
    assert "again" not in found.do


@pytest.mark.parametrize("rule", REPLICAS.rules, ids=lambda rule: rule.__name__)
def test_without_the_rule_the_case_is_judged_wrongly(rule: Any) -> None:
    assert judged_without(rule, evidence(stage=2, capabilities=BEHIND)) == "stay"
