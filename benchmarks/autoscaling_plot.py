"""Simulated runs side by side, as an SVG that is read on light and on dark pages."""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

SIGN = "<!-- Rung's file: advancing to another stage may change it. -->"
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e } .head { font-weight: 600 }
.right { text-anchor: end } .middle { text-anchor: middle }
path { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.grid { stroke: #d1d9e0; stroke-width: 1 } .offered { stroke: #0969da }
.capacity, .copies { stroke: #1a7f37 } .busy { stroke: #9a6700 }
.target { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3 }
.full, .lost { fill: #d1242f; stroke: none } .full { opacity: .18 } .lost { opacity: .75 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .grid { stroke: #3d444d }
  .offered { stroke: #4493f8 } .capacity, .copies { stroke: #3fb950 }
  .busy { stroke: #d29922 } .target { stroke: #9198a1 }
}"""

LEFT, TOP, WIDTH, HEIGHT, GAP = 56, 56, 350, 120, 46
STEP = 10  # seconds


class Second(Protocol):
    @property
    def at(self) -> int: ...
    @property
    def offered(self) -> float: ...
    @property
    def capacity(self) -> float: ...
    @property
    def copies(self) -> int: ...
    @property
    def busy(self) -> float: ...
    @property
    def shed(self) -> float: ...


type Run = Sequence[Second]


def drawn(runs: list[tuple[str, Run]], *, target: float) -> str:
    width = LEFT + len(runs) * (WIDTH + GAP)
    height = TOP + 3 * (HEIGHT + GAP)
    described = "Requests offered and served, copies, and how busy their processors are"
    lines = [
        SIGN,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>A tenfold rise within ten minutes, as autoscaling answers it</title>",
        f"<desc>{described}, for {' and for '.join(name for name, _ in runs)}.</desc>",
        f"<style>\n{STYLE}\n</style>",
    ]
    most_requests = 2 * max(s.offered for _, run in runs for s in run)
    most_copies = 2 * math.ceil(max(s.copies for _, run in runs for s in run) / 2)
    for column, (name, run) in enumerate(runs):
        x = LEFT + column * (WIDTH + GAP)
        lines.append(f'<text class="head" x="{x}" y="18">{name}</text>')
        full = sum(s.busy >= 1 for s in run)
        lost = sum(s.shed for s in run)
        said = f"{full} s with every copy full, {lost:,.0f} requests lost"
        lines.append(f'<text class="small" x="{x}" y="34">{said}</text>')
        panels = (
            (
                "requests/s: offered (blue), possible (green), lost (red)",
                most_requests,
                ["offered", "capacity"],
            ),
            ("copies", most_copies, ["copies"]),
            (f"busy, of 100%; the target is {target:.0%}", 1.0, ["busy"]),
        )
        for row, (title, most, names) in enumerate(panels):
            y = TOP + row * (HEIGHT + GAP)
            lines += _frame(x, y, title, most, run[-1].at + 1, is_first=column == 0)
            lines += _full(run, x, y)
            if names == ["busy"]:
                level = y + HEIGHT * (1 - target)
                lines.append(f'<path class="target" d="M{x} {level:g}h{WIDTH}"/>')
            if row == 0:
                lines.append(_bars(run, x, y, most))
            lines += [_line(run, one, x, y, most) for one in names]
    return "\n".join([*lines, "</svg>", ""])


def _frame(
    x: int, y: int, title: str, most: float, seconds: int, *, is_first: bool
) -> Iterator[str]:
    yield f'<text class="small" x="{x}" y="{y - 6}">{title}</text>'
    for share in (0, 0.5, 1):
        level = y + HEIGHT * (1 - share)
        yield f'<path class="grid" d="M{x} {level:g}h{WIDTH}"/>'
        if is_first:
            value = f"{share:.0%}" if most == 1 else f"{most * share:,.0f}"
            yield f'<text class="small right" x="{x - 6}" y="{level + 4:g}">{value}</text>'
    for minute in range(0, seconds // 60, 20):
        at = x + WIDTH * minute * 60 / seconds
        yield f'<text class="small middle" x="{at:g}" y="{y + HEIGHT + 15}">{minute} min</text>'


def _line(run: Run, name: str, x: int, y: int, most: float) -> str:
    points: list[tuple[float, float]] = []
    for second in run[::STEP]:
        at = x + WIDTH * second.at / len(run)
        level = y + HEIGHT * (1 - min(1, getattr(second, name) / most))
        if len(points) > 1 and points[-1][1] == points[-2][1] == level:
            points.pop()  # A level line needs its two ends.
        points.append((at, level))
    path = "L".join(f"{at:.1f} {level:.1f}" for at, level in points)
    return f'<path class="{name}" d="M{path}"/>'


def _bars(run: Run, x: int, y: int, most: float) -> str:
    """Requests lost a second, from the bottom."""
    parts = []
    for begin in range(0, len(run), STEP):
        seconds = run[begin : begin + STEP]
        if lost := sum(s.shed for s in seconds) / STEP:
            at, high = x + WIDTH * begin / len(run), HEIGHT * lost / most
            parts.append(
                f"M{at:.1f} {y + HEIGHT}v-{high:.1f}h{WIDTH * STEP / len(run):.1f}v{high:.1f}z"
            )
    return f'<path class="lost" d="{"".join(parts)}"/>'


def _full(run: Run, x: int, y: int) -> Iterator[str]:
    """While every copy is full."""
    begin = None
    for second in run:
        is_full = second.busy >= 1
        if is_full and begin is None:
            begin = second.at
        elif begin is not None and not is_full:
            at, wide = x + WIDTH * begin / len(run), WIDTH * (second.at - begin) / len(run)
            yield f'<path class="full" d="M{at:.1f} {y}h{wide:.1f}v{HEIGHT}h-{wide:.1f}z"/>'
            begin = None
