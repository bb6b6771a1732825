# Rung's file: advancing to another stage may change it.
"""The doctor beside a real replica of a module's own database."""

import signal
from typing import Any

import pytest

from app.infra.doctor.finding import CapabilityEvidence, Window
from app.infra.doctor.rules import judge
from app.infra.module_databases.replicas.doctor import MODULE_REPLICAS, NAME, OfModules, look
from app.infra.replicas.doctor import ReplicaSeen
from tests.infra.conftest import bare_app
from tests.infra.doctor.test_rules import BUSY, READS, evidence, judged_without, scan, statement
from tests.infra.module_databases.replicas.test_routing import parcels
from tests.infra.replicas.replication import Server, always_reading

PARCELS = "database of parcels"
READ = "SELECT count(*) FROM sent WHERE name = $1"


def seen(capability: CapabilityEvidence | None) -> ReplicaSeen:
    assert capability
    assert isinstance(capability.seen, OfModules)
    [found] = capability.seen.databases[PARCELS].replicas
    return found


@pytest.mark.slow
async def test_reads_on_the_replica_of_a_module_are_seen_and_counted(
    primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no lag.
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_MAX_LAG_SECONDS", "60")
    await primary.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await replica.becomes("EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')")

    async with always_reading(replica, READ, "a"):
        capability = await look(Window(8, 15))

    assert seen(capability).left_out == 0
    assert capability
    [reader] = capability.readers_of[PARCELS]
    # On a busy machine a question of the driver may have taken longer.
    assert READ in [one.sql for one in reader.statements or ()]
    assert not capability.skipped
    assert str(replica.port) not in seen(capability).model_dump_json()


@pytest.mark.slow
async def test_a_silent_replica_of_a_module_is_named(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infra.replicas.replicas.SILENCE_SECONDS", 1)
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_CONNECT_SECONDS", "2")
    replica.signal(signal.SIGSTOP)
    try:
        capability = await look(Window(6, 8))
    finally:
        replica.signal(signal.SIGCONT)

    assert capability
    assert capability.seen
    found = judge(evidence(stage=4, capabilities={NAME: capability.seen.model_dump()}))
    assert found.verdict.rule == "replica-behind"
    assert found.verdict.text.startswith(f"{PARCELS}: replica 1 gets no reads")
    [skipped] = capability.skipped
    assert skipped.source == f"statements of the replicas of the {PARCELS}"
    assert skipped.remedy == "try psql with MODULE_PARCELS_DATABASE_REPLICA_URLS"


@pytest.mark.slow
async def test_behind_a_pooler_the_doctor_needs_a_url_that_the_app_accepts(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replica.url.replace("127.0.0.1", "localhost")
    for name, value in (("READ_URL", elsewhere), ("DIRECT_URL", replica.url), ("POOLED", "true")):
        monkeypatch.setenv(f"MODULE_PARCELS_DATABASE_{name}", value)
    capability = await look(Window(1, 8))
    assert capability
    [skipped] = capability.skipped
    assert "MODULE_PARCELS_DATABASE_REPLICA_DIRECT_URLS" in skipped.remedy

    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_DIRECT_URLS", replica.url)
    capability = await look(Window(1, 8))
    assert capability
    assert len(capability.readers_of[PARCELS]) == 1
    assert parcels.database(bare_app())


async def test_without_replicas_of_modules_there_is_nothing_to_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", "postgresql://app@127.0.0.1:1/parcels")
    assert await look(Window(1, 8)) is None


BEHIND = {"replicas": [{"left_out": 0.0, "behind_s": 0.1}, {"left_out": 1.0, "behind_s": 12.0}]}
HEALTHY = evidence().model_dump()["database"]
BUSY_READER = HEALTHY | BUSY | {"statements": READS}
SCANS = HEALTHY | BUSY | {"statements": [statement(scans=[scan()])]}


def beside(*readers: dict[str, Any], **changes: Any) -> Any:
    return evidence(stage=4, others={PARCELS: HEALTHY}, readers_of={PARCELS: readers}, **changes)


@pytest.mark.parametrize(
    ("reader", "rule", "do"),
    [
        (BUSY_READER, "module-reads", "one more replica of this database"),
        (BUSY_READER | {"processors": None}, "not-known", "module_cpus"),
        # The scan runs on the replica alone.
        (SCANS, "index", "an index for"),
    ],
)
def test_the_replica_of_a_module_is_judged_by_its_own_numbers(
    reader: dict[str, Any], rule: str, do: str
) -> None:
    verdict = judge(beside(HEALTHY, reader)).verdict
    assert (verdict.rule, verdict.text.startswith(f"{PARCELS}: ")) == (rule, True)
    assert do in verdict.do
    assert judge(beside(HEALTHY)).verdict.rule == "stay"


def test_a_module_whose_primary_cannot_be_read_is_judged_by_its_replica() -> None:
    found = evidence(stage=4, readers_of={PARCELS: [SCANS]})
    assert judge(found).verdict.text.startswith(f"{PARCELS}: an index is missing")


def test_replicas_of_a_module_that_get_no_reads_name_the_variable() -> None:
    unused = {NAME: {"databases": {PARCELS: {"replicas": [], "reads": False}}}}
    assert judge(evidence(others={PARCELS: HEALTHY}, capabilities=unused)).verdict.rule == "stay"

    verdict = judge(evidence(others={PARCELS: BUSY_READER}, capabilities=unused)).verdict

    assert verdict.rule == "replica-unused"
    assert "MODULE_PARCELS_DATABASE_REPLICA_READS=false" in verdict.do


@pytest.mark.parametrize("rule", MODULE_REPLICAS.rules, ids=lambda rule: rule.__name__)
def test_without_the_rule_a_replica_behind_is_judged_wrongly(rule: Any) -> None:
    found = beside(capabilities={NAME: {"databases": {"database of a": {"replicas": []}}}})
    assert judge(found).verdict.rule == "stay"
    behind = evidence(stage=4, capabilities={NAME: {"databases": {PARCELS: BEHIND}}})
    assert judge(behind).verdict.text.startswith(f"{PARCELS}: replica 2 gets no reads")
    assert judged_without(rule, behind) == "stay"
