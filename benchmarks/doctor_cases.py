"""Checks that the doctor names the cause of each case, on real servers under load.

In a generated repo:

    uv run python ../rung/benchmarks/doctor_cases.py [--only CASE] [--runs N] [--keep FOLDER]

Each case is one route of doctor_app.py under load for about 12 s, with a new Postgres: some 20 s
each on a quiet machine. Each stage has the cases of the servers that it has. It exits 1 when a
verdict is wrong. `--keep` writes the evidence of each run: the quick tests judge it again.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path.cwd()))

import doctor_stack
from doctor_stack import Case

# Some 100 ms of Redis' one processor.
SLOW = "for i = 1, 10000000 do end return 1"

PLAIN = {
    "healthy": Case("/healthy", "stay"),
    "tiny table": Case("/tiny", "stay"),
    "no traffic": Case("/healthy", "too-little-evidence", clients=1, pause=5),
    "one report at night": Case(
        "/healthy", "stay", beside=("SELECT sum(id % 7) FROM generate_series(1, 5000000) AS id",)
    ),
    "missing index": Case("/scan", "index"),
    "missing index behind an order": Case("/ordered", "index"),
    "missing index at full load": Case("/scan", "index", clients=8, pause=0),
    "one statement a row": Case("/rows", "n-plus-1"),
    "hot row": Case("/hot", "hot-row", clients=8, pause=0),
    "call in a transaction": Case("/call", "idle-in-tx"),
    "call on a locked row": Case("/call-on-a-row", "idle-in-tx", clients=8),
    "alter behind a report": Case(
        "/healthy",
        "ddl-lock",
        environment=(("DATABASE_STATEMENT_SECONDS", "30"),),
        beside=(
            "BEGIN; LOCK visits IN ACCESS SHARE MODE; SELECT pg_sleep(60)",
            "ALTER TABLE visits ADD COLUMN note text",
        ),
    ),
    "sequence runs out": Case(
        "/healthy",
        "clocks",
        prepare=("CREATE SEQUENCE small AS smallint", "SELECT setval('small', 30000)"),
    ),
    "connections are nearly all open": Case("/healthy", "connections", advance_to=2, leave=6),
    "no connection is left": Case("/healthy", "connections", advance_to=2, leave=0),
    "dead rows": Case("/crowd", "vacuum", pause=0, prepare=("UPDATE crowd SET n = n + 1",) * 40),
    "checkpoints": Case(
        "/import",
        "checkpoints",
        clients=8,
        pause=0,
        prepare=("ALTER SYSTEM SET max_wal_size = '32MB'", "SELECT pg_reload_conf()"),
    ),
    # Each flush takes 50 ms, and all others wait for their turn to write the WAL.
    "slow flush": Case(
        "/change",
        "disk",
        clients=8,
        pause=0,
        prepare=(
            "ALTER SYSTEM SET commit_delay = 50000",
            "ALTER SYSTEM SET commit_siblings = 0",
            "SELECT pg_reload_conf()",
        ),
    ),
    "import": Case("/import", "writes", pause=0),
    "the same reads": Case("/same", "cache", pause=0, advance_to=3),
    "the same reads, and nobody said so": Case("/unsaid", "not-known", pause=0),
    "the same reads, without a log": Case("/same", "not-known", pause=0, log=False),
    "the same reads, not counted": Case(
        "/same", "not-known", pause=0, prepare=("DROP EXTENSION pg_stat_statements",)
    ),
    "different reads": Case("/different", "replicas", pause=0, advance_to=2),
    "python": Case("/cpu", "app-cpu", pause=0, advance_to=4, advance_from=3),
    "python beside a neighbour": Case(
        "/cpu",
        "starved",
        pause=0,
        before=("taskset", "-c", "0", "nice", "-n", "5"),
        neighbour=True,
    ),
    "sleep in the loop": Case("/sleep", "app-blocked", clients=2, pause=0.3),
    "small pool, far away": Case(
        "/far", "pool", clients=8, pause=0, environment=(("DATABASE_READ_POOL", "2"),)
    ),
}
POOLER = {
    "healthy behind a pooler": Case("/healthy", "stay", pooler=(("default_pool_size", 20),)),
    "small pooler": Case(
        "/far",
        "pooler",
        clients=8,
        pause=0,
        pooler=(("default_pool_size", 2), ("reserve_pool_size", 0)),
        environment=(("DATABASE_READ_POOL", "16"),),
    ),
    "clients of the pooler run out": Case(
        "/healthy", "pooler", pooler=(("max_client_conn", 60),), leave=2
    ),
}
REPLICA = {
    "healthy with a replica": Case("/healthy", "stay", replica=True),
    "missing index on the replica": Case("/scan", "index", replica=True),
    "replica that stands still": Case(
        "/change",
        "replica-behind",
        replica=True,
        on_replica=("SELECT pg_wal_replay_pause()",),
        environment=(("DATABASE_REPLICA_MAX_LAG_SECONDS", "1"),),
    ),
    "the same reads on the replica": Case("/same", "cache", pause=0, advance_to=3, replica=True),
    "different reads on the replica": Case("/different", "replicas", pause=0, replica=True),
}
CACHE = {
    "the same reads from the cache": Case("/same", "stay", cache=(("maxmemory", "50mb"),)),
    "different reads past the cache": Case(
        "/different", "replicas", pause=0, cache=(("maxmemory", "50mb"),)
    ),
    "small cache": Case("/large", "cache-too-small", cache=(("maxmemory", "3mb"),)),
    "slow commands in the cache": Case(
        "/same", "redis-busy", cache=(("maxmemory", "50mb"),), in_cache=SLOW
    ),
}
COPIES = {
    "healthy with two copies": Case(
        "/healthy",
        "stay",
        copies=2,
        replica=True,
        pooler=(("default_pool_size", 20),),
        cache=(("maxmemory", "50mb"),),
        sessions=(("maxmemory", "50mb"),),
    ),
    "sleep in two copies": Case("/sleep", "app-blocked", pause=0.3, copies=2),
    "sessions are full": Case(
        "/healthy", "sessions-full", sessions=(("maxmemory", "6mb"),), fill_sessions=True
    ),
    "sessions are away": Case(
        "/healthy", "unavailable", sessions=(("maxmemory", "50mb"),), end_sessions=True
    ),
}


class Wing(NamedTuple):
    folder: str
    cases: dict[str, Case]


WINGS = (
    Wing("doctor", PLAIN),
    Wing("pooling", POOLER),
    Wing("replicas", REPLICA),
    Wing("cache", CACHE),
    Wing("copies", COPIES),
)
CASES = {name: case for wing in WINGS for name, case in wing.cases.items()}


def here() -> list[str]:
    """The copies' cases need a replica too."""
    infra = Path("app/infra")
    found = [wing for wing in WINGS if (infra / wing.folder).is_dir()]
    has_replicas = (infra / "replicas").is_dir()
    return [
        name
        for wing in found
        for name, case in wing.cases.items()
        if has_replicas or not case.replica
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, nargs="+")
    parser.add_argument("--runs", type=int, default=1, help="of each case")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    names = options.only or here()
    tries = [(run, name) for run in range(1, options.runs + 1) for name in names]
    right: Counter[str] = Counter()
    wrong_advances = 0
    for run, name in tries:
        case = CASES[name]
        wanted = told(case.rule, _advance(case))
        keep = options.keep and options.keep / f"run-{run}"
        rule, stage = doctor_stack.tried(name, case, keep)
        right[name] += told(rule, stage) == wanted
        wrong_advances += stage not in (None, _advance(case))
        print(f"| {name} | {wanted} | {told(rule, stage)} |", flush=True)
    print("\n| case | runs | right |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {options.runs} | {right[name]} |")
    print(f"\n{right.total()} of {len(tries)} right, {wrong_advances} wrong advances")
    sys.exit(right.total() < len(tries))


def _advance(case: Case) -> int | None:
    """A repo that is at that stage already is not sent there."""
    stage, to = doctor_stack.stage(), case.advance_to
    return to if to and case.advance_from <= stage < to else None


def told(rule: str, stage: int | None) -> str:
    return f"{rule}, stage {stage}" if stage else rule


if __name__ == "__main__":
    main()
