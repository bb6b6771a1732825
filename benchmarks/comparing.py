"""The table of an interleaved run: each case's throughput as a part of another case's."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from serving import Runs


class Against(NamedTuple):
    """Two columns: the part, under `head`, and its minimum."""

    case: str
    head: str
    least: Mapping[str, float]


def only(what: str, results: Runs) -> Runs:
    """The cases whose names begin with `what, `, by the rest of the name."""
    prefix = f"{what}, "
    return {
        name.removeprefix(prefix): runs for name, runs in results.items() if name.startswith(prefix)
    }


def medians(runs: Sequence[Sequence[float]]) -> list[float]:
    """Of each column."""
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def longest_tail(results: Runs, names: Iterable[str]) -> float:
    """The largest p99 of these cases, as a multiple of its p50."""
    return max(p99 / p50 for _, p50, p99 in (medians(results[name]) for name in names))


def report(what: str, results: Runs, *others: Against) -> bool:
    """True if every case reaches its minimum. Parts are computed round by round."""
    heads = "".join(f" {other.head} | at least |" for other in others)
    print(f"\n| {what} | requests/s | p50 ms | p99 ms |{heads}")
    print("|---" * (4 + 2 * len(others)) + "|")
    met = True
    for name, runs in results.items():
        requests, p50, p99 = medians(runs)
        row = f"| {name} | {requests:,.0f} | {p50:.1f} | {p99:.1f} |"
        for other in others:
            pairs = zip(runs, results[other.case], strict=True)
            part = statistics.median(run[0] / of[0] for run, of in pairs)
            least = other.least.get(name)
            row += f" {part:.3f} | {least or ''} |"
            met &= least is None or part >= least
        print(row)
    return met
