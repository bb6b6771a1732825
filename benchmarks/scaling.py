"""One copy of the generated app behind HAProxy against four, in one interleaved run. Run it inside
a generated repo of stage 4:

    uv run python path/to/rung/benchmarks/scaling.py

Needs wrk, haproxy, two processors and root. 1,000 products, on its own Postgres; eight
requests at once for each copy. The maximum throughput of four copies says little on a machine that
they share with Postgres and the load. So the benchmark compares processor time for each request.
The copies have one processor for themselves and everything else has the other: two busy processors
slow each other, and four copies on both would seem to need half as much again.

On that processor the copies take turns, and each turn finds the processor's caches filled by
another copy. A copy with its own processor does not pay for that. So one copy is compared with four
in turns of 100 ms (SCHED_RR). Four copies in Linux's usual turns of 3 ms are measured as well.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from comparing import medians
from serving import cookie_of_somebody, free_port, items, migrated_and_filled, resident_mib, wrk

sys.path.insert(0, str(Path.cwd()))

from dev.copies import haproxy
from dev.copies.stack_copy import Copy


class Case(NamedTuple):
    copies: int
    policy: int
    most_growth: float | None  # of processor time a request, over the first


CASES = {
    "1": Case(1, os.SCHED_RR, None),
    "4": Case(4, os.SCHED_RR, 1.15),
    "4, short turns": Case(4, os.SCHED_OTHER, None),
}
AT_ONCE_FOR_EACH = 8
OF_THE_COPIES, OF_ALL_ELSE = {0}, {1}
READY_SECONDS = 1.5
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    requests_per_second: float
    p50: float
    p99: float
    cpu_ms: float


class Stack(NamedTuple):
    url: str
    balancer: int
    copies: list[int]


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    os.sched_setaffinity(0, OF_ALL_ELSE)  # and of the processes that it starts
    with migrated_and_filled() as environment, tempfile.TemporaryDirectory() as folder:
        # Four copies must fit into Postgres' hundred connections.
        environment |= {"DATABASE_WRITE_POOL": "4", "LOG_LEVEL": "WARNING"}
        ready = [_seconds_until_ready(Path(folder, "start"), environment) for _ in range(5)]
        with ExitStack() as stack:
            copies = [
                stack.enter_context(Copy(Path(folder, f"app-{n}"), environment).running())
                for n in range(max(case.copies for case in CASES.values()))
            ]
            for copy in copies:
                copy.wait_until_ready()
                for thread in _threads(copy.pid):
                    os.sched_setaffinity(thread, OF_THE_COPIES)
            stacks = {
                n: stack.enter_context(_balanced(copies[:n], Path(folder, f"{n}")))
                for n in {case.copies for case in CASES.values()}
            }
            results = _interleaved(stacks, options.rounds, options.seconds)
            resident = [resident_mib(copy.pid) for copy in copies]
    return _report(results, statistics.median(ready), max(resident))


def _seconds_until_ready(folder: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with Copy(folder, environment).running() as copy:
        copy.wait_until_ready()
        return time.perf_counter() - started


@contextmanager
def _balanced(copies: list[Copy], folder: Path) -> Iterator[Stack]:
    ports = [copy.port for copy in copies]
    unlimited = {"unlimited_clients": "127.0.0.1"}  # wrk is one client
    with haproxy.HAProxy(folder, free_port(), ports, **unlimited).running() as server:
        balancer = int((folder / "server.pid").read_text())
        yield Stack(server.url, balancer, [copy.pid for copy in copies])


type Results = dict[str, dict[str, list[Run]]]


def _interleaved(stacks: dict[int, Stack], rounds: int, seconds: int) -> Results:
    paths = _paths(stacks[1].url)
    results: Results = {what: {name: [] for name in CASES} for what in paths}
    for turn in range(rounds + 1):
        for what, (path, *options) in paths.items():
            for name, case in CASES.items():
                print(
                    f"round {turn} of {rounds}: {what}, {name}".ljust(70), end="\r", file=sys.stderr
                )
                warm_up = turn == 0
                stack = stacks[case.copies]
                arguments = [f"-c{case.copies * AT_ONCE_FOR_EACH}", stack.url + path, *options]
                _let_take_turns(stack.copies, case.policy)
                run = _measured(stack, arguments, 1 if warm_up else seconds)
                if not warm_up:
                    results[what][name].append(run)
    return results


def _let_take_turns(pids: list[int], policy: int) -> None:
    priority = os.sched_param(os.sched_get_priority_min(policy))
    try:
        for pid in pids:
            for thread in _threads(pid):
                os.sched_setscheduler(thread, policy, priority)
    except PermissionError:
        sys.exit("Only root may say how long the copies' turns are: run this as root.")


def _threads(pid: int) -> list[int]:
    return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]


def _paths(url: str) -> dict[str, list[str]]:
    return {"item by id": items(url), "me": ["/me", "-H", f"Cookie: {cookie_of_somebody(url)}"]}


def _measured(stack: Stack, arguments: list[str], seconds: int) -> Run:
    pids = [stack.balancer, *stack.copies]
    before = sum(map(_cpu_seconds, pids))
    rate, p50, p99 = wrk(arguments, seconds)
    spent = sum(map(_cpu_seconds, pids)) - before
    return Run(rate, p50, p99, 1000 * spent / (rate * seconds))


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _report(results: Results, ready: float, resident: float) -> int:
    met = ready <= READY_SECONDS
    print("| what | copies | requests/s | p50 ms | p99 ms | CPU ms a request | growth | at most |")
    print("|---|---|---|---|---|---|---|---|")
    for what, by_case in results.items():
        first = by_case[next(iter(CASES))]
        for name, runs in by_case.items():
            rate, p50, p99, cpu = medians(runs)
            growth = statistics.median(
                run.cpu_ms / base.cpu_ms for run, base in zip(runs, first, strict=True)
            )
            limit = CASES[name].most_growth
            print(
                f"| {what} | {name} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {cpu:.3f} "
                f"| {growth:.2f} | {limit or ''} |"
            )
            met &= limit is None or growth <= limit
    print(f"\nready after: {ready:.2f} s (at most {READY_SECONDS})")
    print(f"resident, the largest copy: {resident:.0f} MiB")
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
