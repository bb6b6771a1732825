"""Simulates, second by second, how autoscaling answers a tenfold rise within ten minutes.

    uv run python benchmarks/autoscaling.py             prints the table of benchmarks/README.md
    uv run python benchmarks/autoscaling.py --draw      and draws it for stage 4's page

The settings are those of the template: deploy/autoscaling-*.json. The assumptions:

- a copy is one process on one processor, and a request takes 0.5 ms of it (http_throughput.py:
  1,979 requests/s for `me`);
- a copy serves 60 s after it is wanted: a machine, the image, 0.7 s until it listens, two checks;
- AWS: the average of each minute is known a minute later; three of them above the target start
  copies, fifteen below nine tenths of it stop some. The next change waits for the copies of the
  one before and for the cooldown. A processor is never busier than 100%, so that one change makes
  at most 100/60 of what runs;
- Kubernetes: looks every 15 s at what was 30 s ago, and doubles once a minute at most;
- a request that has waited 5 s gets an error, and no client retries (real clients do).
"""

import argparse
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import autoscaling_plot

TEMPLATE = Path(__file__).parent.parent / "template"
PICTURE = TEMPLATE / "docs" / "guide" / "copies" / "autoscaling.svg"

AT_REST, RISE = 1_000, 10
BEGINS, TENFOLD, FALLS, FALLEN, ENDS = (60 * minute for minute in (5, 15, 30, 40, 80))
PER_COPY = 2_000
PATIENCE = 5


@dataclass(frozen=True)
class Policy:
    name: str
    target: float
    least: int
    most: int
    out_cooldown: int
    in_cooldown: int
    period: int = 60
    delay: int = 60
    above: int = 3
    below: int = 15
    # Above this share of a processor for one period: multiply the copies by this factor.
    step: tuple[float, float] | None = None
    # Scales on requests for each copy. A processor never shows more than 100%.
    counts_requests: bool = False
    start: int = 60
    doubles_at_most: bool = False
    waits_for_copies: bool = True


@dataclass(frozen=True)
class Second:
    at: int
    offered: float
    capacity: float
    copies: int
    busy: float
    waiting: float
    shed: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", action="store_true", help=f"write {PICTURE.name}")
    parser.add_argument("--picture", action="store_true", help="print the picture, nothing else")
    parser.add_argument("--deploy", type=Path, default=TEMPLATE / "deploy", help="the settings")
    options = parser.parse_args()
    delivered = settings(options.deploy)
    enough = replace(delivered, least=least_that(delivered, sheds_nothing))
    picture = autoscaling_plot.drawn(
        [(f"at least {p.least} copies", list(simulate(p))) for p in (delivered, enough)],
        target=delivered.target,
    )
    if options.picture:
        print(picture, end="")
        return
    print(table(delivered))
    if options.draw:
        PICTURE.write_text(picture)


def settings(deploy: Path) -> Policy:
    target = json.loads((deploy / "autoscaling-target.json").read_text())
    policy = json.loads((deploy / "autoscaling-policy.json").read_text())
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    return Policy(
        "AWS, as delivered",
        tracking["TargetValue"] / 100,
        target["MinCapacity"],
        target["MaxCapacity"],
        tracking["ScaleOutCooldown"],
        tracking["ScaleInCooldown"],
    )


def offered(at: int) -> float:
    rising = min(max((at - BEGINS) / (TENFOLD - BEGINS), 0), 1)
    falling = min(max((at - FALLS) / (FALLEN - FALLS), 0), 1)
    return AT_REST * (1 + (RISE - 1) * (rising - falling))


def simulate(policy: Policy) -> Iterator[Second]:
    copies = wanted = before = policy.least
    starting: deque[tuple[int, int]] = deque()  # when, and how many serve from then on
    measured: list[float] = []
    waiting = 0.0
    calm_from = 0
    for at in range(ENDS):
        while starting and starting[0][0] <= at:
            copies = starting.popleft()[1]
        load, capacity = offered(at), copies * PER_COPY
        served = min(capacity, load + waiting)
        waiting += load - served
        shed = max(0.0, waiting - PATIENCE * capacity)
        waiting -= shed
        measured.append((load if policy.counts_requests else served) / capacity)
        yield Second(at, load, capacity, copies, served / capacity, waiting / capacity, shed)
        if at % policy.period or at < policy.delay + policy.period:
            continue
        known = periods(policy, measured[: at - policy.delay])
        is_calm = at >= calm_from
        base = copies if is_calm or not policy.waits_for_copies else before
        more = bounded(policy, outwards(policy, known, base))
        if more > wanted:
            before, wanted = (copies if is_calm else before), more
            starting.append((at + policy.start, wanted))
            calm_from = at + policy.start + policy.out_cooldown
        elif is_calm and copies == wanted and (fewer := inwards(policy, known, copies)) < copies:
            copies = wanted = before = fewer
            calm_from = at + policy.in_cooldown


def periods(policy: Policy, measured: list[float]) -> list[float]:
    """The averages known by now, the newest last."""
    whole = len(measured) // policy.period * policy.period
    recent = range(max(0, whole - policy.below * policy.period), whole, policy.period)
    return [sum(measured[i : i + policy.period]) / policy.period for i in recent]


def outwards(policy: Policy, known: list[float], copies: int) -> int:
    wanted = [copies]
    if min(known[-policy.above :]) > policy.target:
        wanted.append(math.ceil(copies * known[-1] / policy.target))
    if policy.step and known[-1] > policy.step[0]:
        wanted.append(math.ceil(copies * policy.step[1]))
    most = 2 * copies if policy.doubles_at_most else policy.most
    return min(max(wanted), most)


def inwards(policy: Policy, known: list[float], copies: int) -> int:
    busiest = max(known)
    if len(known) < policy.below or busiest >= 0.9 * policy.target:
        return copies
    return bounded(policy, math.ceil(copies * busiest / policy.target))


def bounded(policy: Policy, copies: int) -> int:
    return min(max(copies, policy.least), policy.most)


def sheds_nothing(run: list[Second]) -> bool:
    return not any(second.shed for second in run)


def never_full(run: list[Second]) -> bool:
    return all(second.busy < 1 for second in run)


def least_that(policy: Policy, is_well: Callable[[list[Second]], bool]) -> int:
    runs = ((n, list(simulate(replace(policy, least=n)))) for n in range(2, policy.most + 1))
    return next(n for n, run in runs if is_well(run))


def table(delivered: Policy) -> str:
    kubernetes = replace(
        delivered,
        name="Kubernetes, the same numbers",
        period=15,
        delay=30,
        above=1,
        below=delivered.in_cooldown // 15,
        doubles_at_most=True,
        waits_for_copies=False,
    )
    policies = [
        delivered,
        replace(delivered, name="target 40%", target=0.4),
        replace(delivered, name="by requests per copy", counts_requests=True),
        replace(delivered, name="and twice the copies at 75% for a minute", step=(0.75, 2)),
        replace(delivered, name="copies that start in 3 minutes", start=180),
        kubernetes,
        replace(kubernetes, name="Kubernetes, nodes that start in 3 minutes", start=180),
    ]
    return "\n".join(
        [
            "| | s full | requests lost | most copies"
            " | minimum to lose none | minimum never full |",
            "|---|---|---|---|---|---|",
            *map(row, policies),
        ]
    )


def row(policy: Policy) -> str:
    run = list(simulate(policy))
    lost = sum(second.shed for second in run)
    rise = sum(second.offered for second in run[BEGINS:FALLS])
    cells = [
        policy.name,
        str(sum(second.busy >= 1 for second in run)),
        f"{lost:,.0f} ({lost / rise:.1%})",
        str(max(second.copies for second in run)),
        str(least_that(policy, sheds_nothing)),
        str(least_that(policy, never_full)),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
