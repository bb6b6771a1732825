# Rung's file: advancing to another stage may change it.
"""Each rule of the doctor, by evidence; the false verdicts of its trial stay here as tests."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.infra.doctor.capabilities import CAPABILITIES
from app.infra.doctor.evidence import Evidence
from app.infra.doctor.rules import RULES, judge

GUIDE = Path("docs/guide/doctor.md")


def statement(**changes: Any) -> dict[str, Any]:
    return {
        "sql": "SELECT id FROM orders WHERE account_id = $1",
        "calls": 300,
        "total_ms": 300.0,
        "rows": 4500,
        "pages": 1200,
        "share": 1.0,
        **changes,
    }


def scan(kind: str = "Seq Scan", rows: int = 240_000) -> dict[str, Any]:
    return {
        "kind": kind,
        "table": "public.orders",
        "table_rows": rows,
        "filter": "(account_id = $1)",
    }


def route(**changes: Any) -> dict[str, Any]:
    return {
        "route": "GET /orders",
        "requests": 300,
        "total_ms": 3000.0,
        "p95_ms": 23.0,
        "median_calls": 1.0,
        **changes,
    }


HEALTHY: dict[str, Any] = {
    "database": {
        "samples": 20,
        "active": 0.2,
        "on_processor": 0.1,
        "in_io": 0.0,
        "waits_for_table": 0.0,
        "waits_for_row": 0.0,
        "idle_in_transaction": 0.1,
        "longest_idle_s": 0.01,
        "longest_idle_blocker_s": 0.0,
        "clients": 12,
        "slots": 100,
        "processors": 1,
        "statements": [statement()],
        "tables": [{"name": "public.orders", "live": 240_000, "dead": 100, "written": 20}],
        "requested_checkpoints": 0,
        "oldest_xid": 1000,
        "fullest_sequence": 0.01,
    },
    "requests": {
        "count": 300,
        "seconds": 10.0,
        "p95_ms": 23.0,
        "errors": 0,
        "total_ms": 3000.0,
        "db_ms": 300.0,
        "wait_ms": 0.0,
        "refused": 0,
        "routes": [route()],
    },
    "process": {
        "lines": 5,
        "got": 0.3,
        "wanted": 0.35,
        "loop_p90_ms": 1.0,
        "waiting_lines": 0.0,
        "stale_reads": 1000,
        "stale_repeats": 200,
    },
}


def evidence(
    *,
    stage: int = 1,
    database: dict[str, Any] | None = None,
    requests: dict[str, Any] | None = None,
    process: dict[str, Any] | None = None,
    **changes: Any,
) -> Evidence:
    return Evidence.model_validate(
        {
            "stage": stage,
            "at": datetime(2026, 11, 25, 20, 47, tzinfo=UTC),
            "window_s": 10.0,
            "database": HEALTHY["database"] | (database or {}),
            "requests": HEALTHY["requests"] | (requests or {}),
            "process": HEALTHY["process"] | (process or {}),
            **changes,
        }
    )


def judged_without(rule: Any, found: Evidence) -> str:
    """The rule of the verdict if this rule did not exist."""
    return judge(found, tuple(one for one in RULES if one is not rule)).verdict.rule


READS = [statement(sql="SELECT sum(n) FROM sales")]
BUSY = {"active": 1.0, "on_processor": 0.9}
CASES: dict[str, tuple[str, int | None, Evidence]] = {
    "xids run out": ("clocks", None, evidence(database={"oldest_xid": 1_200_000_000})),
    "a sequence runs out": ("clocks", None, evidence(database={"fullest_sequence": 0.8})),
    "a slot that nobody reads": ("clocks", None, evidence(database={"kept_wal": 3 << 30})),
    "an archive that fails": ("clocks", None, evidence(database={"archive_fails": True})),
    "a server is away": ("unavailable", None, evidence(unavailable=["sessions"])),
    "a server is away, and transactions wait for it": (
        "unavailable",
        None,
        evidence(unavailable=["files"], database={"longest_idle_s": 6}),
    ),
    "the app is away from a database that is full": (
        "connections",
        2,
        evidence(unavailable=["database"], refused=True, database=None),
    ),
    "the database is away from the app only": (
        "unavailable",
        None,
        evidence(unavailable=["database"], requests={"errors": 3}),
    ),
    "the database is away, and the log has no statement": (
        "unavailable",
        None,
        evidence(unavailable=["database"], requests={"db_ms": None}),
    ),
    "the database is too busy for /ready, and no request fails": (
        "replicas",
        2,
        evidence(unavailable=["database"], database=BUSY | {"statements": READS}),
    ),
    # Its /ready reported the database as away, but the doctor asked too late.
    "a server seems away to a late app": (
        "app-cpu",
        None,
        evidence(
            unavailable=["database"],
            requests={"errors": 3},
            process={"got": 0.84, "wanted": 0.99, "loop_p90_ms": 700},
        ),
    ),
    "a server is away, and nobody knows what the app wanted": (
        "unavailable",
        None,
        evidence(unavailable=["sessions"], process={"wanted": None, "loop_p90_ms": 700}),
    ),
    "the doctor is refused": ("connections", 2, evidence(refused=True, database=None)),
    "the app is refused": ("connections", 2, evidence(requests={"refused": 3})),
    "the role's own limit is reached": ("connections", None, evidence(limited=True, database=None)),
    "the app's role has reached its own limit": (
        "connections",
        None,
        evidence(requests={"limited": 3}),
    ),
    "the slots are full": ("connections", 2, evidence(database={"clients": 95})),
    "the same behind a pooler": ("connections", None, evidence(stage=2, database={"clients": 95})),
    "an ALTER waits": (
        "ddl-lock",
        None,
        evidence(database={"active": 8, "waits_for_table": 7, "in_io": 0}),
    ),
    "a call in a transaction": ("idle-in-tx", None, evidence(database={"longest_idle_s": 6})),
    "a call while a row is locked": (
        "idle-in-tx",
        None,
        evidence(database={"active": 5, "waits_for_row": 5, "longest_idle_blocker_s": 2.5}),
    ),
    "many short idle transactions": (
        "idle-in-tx",
        None,
        evidence(database={"idle_in_transaction": 5}),
    ),
    "one row for all": ("hot-row", None, evidence(database={"active": 6, "waits_for_row": 5})),
    "one advisory lock for all": (
        "hot-row",
        None,
        evidence(database={"active": 6, "waits_for_advisory": 5}, process={"waiting_lines": 1}),
    ),
    "a batch holds many rows": (
        "hot-row",
        None,
        evidence(database={"active": 6, "waits_for_row": 5, "longest_blocker_s": 8}),
    ),
    "a sequential scan": (
        "index",
        None,
        evidence(database={"statements": [statement(scans=[scan()])]}),
    ),
    "an ordered index hides the missing one": (
        "index",
        None,
        evidence(
            database={"statements": [statement(pages=3857 * 300, scans=[scan("Index Scan")])]}
        ),
    ),
    "a missing index keeps the processor busy": (
        "index",
        None,
        evidence(database=BUSY | {"statements": [statement(scans=[scan()])]}),
    ),
    "one statement a row": (
        "n-plus-1",
        None,
        evidence(requests={"routes": [route(median_calls=15)]}),
    ),
    "one statement a row keeps Python busy": (
        "n-plus-1",
        None,
        evidence(
            requests={"routes": [route(median_calls=15)]},
            process={"got": 0.84, "wanted": 0.99, "loop_p90_ms": 110},
        ),
    ),
    "one cheap statement a row, beside slower routes": (
        "n-plus-1",
        None,
        evidence(
            requests={
                "routes": [
                    route(route="GET /reports"),
                    route(route="GET /items", total_ms=200.0, median_calls=15, p95_ms=4.0),
                ]
            }
        ),
    ),
    # This is not their bottleneck.
    "one cheap statement a row, and Python is busy": (
        "app-cpu",
        None,
        evidence(
            requests={"routes": [route(), route(total_ms=200.0, median_calls=15)]},
            process={"got": 0.84, "wanted": 0.99, "loop_p90_ms": 110},
        ),
    ),
    "a few rows of a checkout": (
        "stay",
        None,
        evidence(
            requests={"routes": [route(), route(requests=20, total_ms=200.0, median_calls=12)]}
        ),
    ),
    "dead rows": (
        "vacuum",
        None,
        evidence(
            database=BUSY
            | {"tables": [{"name": "public.orders", "live": 1000, "dead": 240_156, "written": 9}]}
        ),
    ),
    "a checkpoint each 2 s": (
        "checkpoints",
        None,
        evidence(database={"active": 4, "in_io": 3, "requested_checkpoints": 4}),
    ),
    "a checkpoint each 2 s, and one that writes holds up the others": (
        "checkpoints",
        None,
        evidence(
            database={"active": 6, "on_processor": 1.5, "in_io": 0.5, "requested_checkpoints": 4}
        ),
    ),
    "a slow disk": ("disk", None, evidence(database={"active": 4, "in_io": 3})),
    "an import": (
        "writes",
        None,
        evidence(database=BUSY | {"statements": [statement(sql="INSERT INTO orders VALUES ($1)")]}),
    ),
    "the same bestsellers": (
        "cache",
        3,
        evidence(stage=2, database=BUSY | {"statements": READS}, process={"stale_repeats": 900}),
    ),
    "a million even keys": ("replicas", 2, evidence(database=BUSY | {"statements": READS})),
    "repeats were not measured": (
        "not-known",
        None,
        evidence(database=BUSY | {"statements": READS}, process={"stale_reads": 0}),
    ),
    "processors were not told": (
        "not-known",
        None,
        evidence(database=BUSY | {"processors": None, "statements": READS}),
    ),
    "Python is busy": (
        "app-cpu",
        4,
        evidence(stage=3, process={"got": 0.84, "wanted": 0.99, "loop_p90_ms": 110}),
    ),
    "Python is busy at stage 1": (
        "app-cpu",
        None,
        evidence(process={"got": 0.84, "wanted": 0.99, "loop_p90_ms": 30}),
    ),
    "others have the processor": (
        "starved",
        None,
        evidence(process={"got": 0.19, "wanted": 0.99, "loop_p90_ms": 487}),
    ),
    "a sleep in the loop": ("app-blocked", None, evidence(process={"loop_p90_ms": 200})),
    "a small pool far away": ("pool", None, evidence(process={"waiting_lines": 1.0})),
    "slow for no known reason": ("not-known", None, evidence(requests={"p95_ms": 400})),
    "few requests, and they fail": (
        "not-known",
        None,
        evidence(requests={"count": 20, "errors": 20}, database={"statements": []}),
    ),
    "no traffic": (
        "too-little-evidence",
        None,
        evidence(requests={"count": 2}, database={"statements": []}),
    ),
    "healthy": ("stay", None, evidence()),
    # Each of these was once a false verdict.
    "a tiny table is read sequentially": (
        "stay",
        None,
        evidence(database={"statements": [statement(scans=[scan(rows=10)])]}),
    ),
    "one report at night": (
        "stay",
        None,
        evidence(
            database={"statements": [statement(), statement(calls=1, share=0.9, scans=[scan()])]}
        ),
    ),
    "one checkpoint in a short window, beside an import": (
        "writes",
        None,
        evidence(
            database=BUSY
            | {
                "in_io": 0.3,
                "requested_checkpoints": 1,
                "statements": [statement(sql="INSERT INTO orders VALUES ($1)")],
            }
        ),
    ),
    "a checkpoint that disturbs nobody": (
        "stay",
        None,
        evidence(database={"requested_checkpoints": 4}),
    ),
    "no extension, and busy": ("not-known", None, evidence(database=BUSY | {"statements": None})),
    "dead rows that nobody reads": (
        "stay",
        None,
        evidence(
            database={
                "tables": [{"name": "public.audit", "live": 10, "dead": 90_000, "written": 9}]
            }
        ),
    ),
}


def test_requests_that_fail_lead_to_their_reason_in_the_log() -> None:
    assert "unavailable.md" in judge(evidence(requests={"errors": 30})).verdict.do


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_cause(case: str) -> None:
    rule, stage, seen = CASES[case]

    verdict = judge(seen).verdict

    assert (verdict.rule, verdict.advance_to) == (rule, stage)


# Each capability tests its own.
OWN = {rule for capability in CAPABILITIES for rule in capability.rules}


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule not in OWN], ids=lambda rule: rule.__name__
)
def test_without_a_rule_a_case_is_judged_wrongly(rule: Any) -> None:
    assert [case for case, (right, _, seen) in CASES.items() if judged_without(rule, seen) != right]


@pytest.mark.parametrize("source", ["sessions", "statements", "requests", "process lines"])
def test_no_stage_is_named_when_a_source_is_missing(source: str) -> None:
    missing = [{"source": source, "why": "it is away", "remedy": "bring it"}]
    seen = CASES["the same bestsellers"][2].model_dump() | {"skipped": missing}

    judgement = judge(Evidence.model_validate(seen))

    assert judgement.verdict.advance_to is None
    assert judgement.exit_code(Evidence.model_validate(seen)) == 3


def test_only_the_verdict_names_a_stage_and_no_other_finding() -> None:
    seen = evidence(database=BUSY | {"statements": [statement(scans=[scan()])]})

    judgement = judge(seen)

    assert judgement.verdict.rule == "index"
    assert [one for one in judgement.also if one.advance_to] == []


def test_a_server_that_is_away_is_named_once() -> None:
    assert judge(evidence(unavailable=["sessions"])).also == []


@pytest.mark.parametrize(
    ("case", "code"),
    [("healthy", 0), ("a sequential scan", 1), ("no traffic", 3), ("the same bestsellers", 4)],
)
def test_the_exit_code_says_what_to_do(case: str, code: int) -> None:
    seen = CASES[case][2]

    assert judge(seen).exit_code(seen) == code


def test_with_a_skipped_source_the_exit_code_is_never_0() -> None:
    missing = [{"source": "requests", "why": "no log was given", "remedy": "give one"}]
    healthy = evidence(skipped=missing)
    broken = evidence(skipped=missing, database={"longest_idle_s": 6})

    assert judge(healthy).exit_code(healthy) == 3
    assert judge(broken).exit_code(broken) == 1


def test_each_verdict_has_its_place_in_the_guide() -> None:
    guide = GUIDE.read_text(encoding="utf-8")

    assert [rule for rule, _, _ in CASES.values() if f"### {rule}\n" not in guide] == []


def test_deadlocks_of_advisory_locks_are_not_called_those_of_rows() -> None:
    found = judge(evidence(database={"active": 6, "waits_for_advisory": 5, "deadlocks": 9})).verdict

    assert found.text == "many requests wait for the same advisory lock"


def test_writes_name_the_table_that_takes_most_of_them() -> None:
    writes = [statement(sql="INSERT INTO orders VALUES ($1)")]
    tables = [
        {"name": "public.orders", "live": 9, "dead": 0, "written": 900},
        {"name": "public.audit", "live": 9, "dead": 0, "written": 100},
    ]

    found = judge(evidence(database=BUSY | {"statements": writes, "tables": tables})).verdict

    assert found.rule == "writes"
    assert any("90% of the written rows go to public.orders" in line for line in found.evidence)
