# Rung's file: advancing to another stage may change it.
"""The doctor beside a module's own database: neither is judged by the other's numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.infra.connections import DatabaseSettings
from app.infra.doctor.finding import Window
from app.infra.doctor.rules import judge
from app.infra.module_databases.doctor import MODULES, look, window_of
from dev.pytest_plugin import Databases
from tests.infra.doctor.test_rules import BUSY, HEALTHY, READS, evidence, judged_without, statement

ORDERS = "database of orders"
WRITES = [statement(sql="INSERT INTO parcels VALUES ($1)")]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "processors_not_known": ("not-known", BUSY | {"processors": None}),
    "reads": ("module-reads", BUSY | {"statements": READS}),
}


def beside(own: dict[str, Any], **changes: Any) -> Any:
    return evidence(stage=4, others={ORDERS: HEALTHY["database"] | own}, **changes)


@pytest.mark.parametrize(
    ("rule", "own"),
    [
        ("clocks", {"fullest_sequence": 0.9}),
        ("connections", {"clients": 95}),
        ("ddl-lock", {"active": 2.0, "waits_for_table": 1.5}),
        ("idle-in-tx", {"longest_idle_s": 9}),
        ("hot-row", {"active": 2.0, "waits_for_row": 1.5}),
        ("checkpoints", {"requested_checkpoints": 4, "active": 2.0}),
        ("disk", {"active": 2.0, "in_io": 1.5}),
        ("writes", BUSY | {"statements": WRITES}),
    ],
)
def test_a_module_s_database_is_judged_like_the_common_one(rule: str, own: dict[str, Any]) -> None:
    verdict = judge(beside(own)).verdict
    assert (verdict.rule, verdict.text.startswith(f"{ORDERS}: ")) == (rule, True)
    assert judge(evidence(stage=4, database=own)).verdict.text == verdict.text.partition(": ")[2]


def test_a_busy_module_hides_no_fault_of_the_common_database_and_causes_none() -> None:
    both = beside({"longest_idle_s": 9}, database={"longest_idle_s": 9})
    assert judge(both).verdict.text.startswith("transactions stay open")

    waiting = {"waiting_lines": 1.0}
    assert judge(beside({}, process=waiting)).verdict.rule == "pool"
    busy = beside(BUSY | {"statements": WRITES}, process=waiting)
    assert [one.rule for one in (judge(busy).verdict, *judge(busy).also)] == ["writes"]


@pytest.mark.parametrize("rule", MODULES.rules, ids=lambda rule: rule.__name__)
def test_each_rule_has_its_case(rule: Any) -> None:
    name, own = CASES[rule.__name__]
    assert judge(beside(own)).verdict.rule == name
    assert judged_without(rule, beside(own)) == "stay"
    assert f"### {name}\n" in Path("docs/guide/doctor.md").read_text(encoding="utf-8")


def test_a_module_with_its_own_role_on_the_common_server_has_the_same_processors() -> None:
    common = DatabaseSettings.model_validate({"url": "postgresql://app:a@db/app"})
    orders = DatabaseSettings.model_validate({"url": "postgresql://orders:b@db:5432/orders"})
    assert window_of("orders", orders, common, Window(1, 8)) == Window(1, 8)


@pytest.fixture
def own(databases: Databases) -> Iterator[str]:
    with databases.created() as url:
        yield url


async def test_the_doctor_looks_at_each_modules_own_database(
    empty_database: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await look(Window(0.1, 8)) is None

    monkeypatch.setenv("MODULE_ORDERS_DATABASE_URL", own)
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", "postgresql://app@127.0.0.1:1/parcels")
    connection = await asyncpg.connect(own)
    await connection.execute("CREATE TABLE orders (id int)")
    told = await look(Window(0.1, 8))
    await connection.close()

    assert told
    assert list(told.others) == [ORDERS]
    assert told.others[ORDERS].processors == 8
    assert [table.name for table in told.others[ORDERS].tables or ()] == ["public.orders"]
    assert "sessions of the database of parcels" in [one.source for one in told.skipped]
