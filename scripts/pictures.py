"""Draws the four stages: python scripts/pictures.py writes docs/pictures/stages.svg."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "stages.svg"

WIDTH, HEIGHT = 440, 240
BOX_WIDTH, BOX_HEIGHT, GAP = 108, 26, 6
LAST_WIDTH = 140

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24; text-anchor: middle }
.title { font-weight: 600; text-anchor: start } .quiet { fill: #59636e; text-anchor: start }
rect { fill: #fff; stroke: #8c959f } .new { fill: #ddf4ff; stroke: #0969da }
path { stroke: #8c959f; fill: none } .panel { fill: #f6f8fa; stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .quiet { fill: #9198a1 } rect { fill: #0d1117 }
.new { fill: #12315a; stroke: #58a6ff } .panel { fill: #161b22; stroke: #30363d } }
"""


class Stage(NamedTuple):
    title: str
    users: str
    columns: Sequence[Sequence[str]]  # from the clients to the stores of data; * marks a new part


STAGES = (
    Stage("1 foundation", "to 10,000", [["clients"], ["one process"], ["Postgres", "a folder"]]),
    Stage(
        "2 database",
        "to 100,000",
        [["clients"], ["processes"], ["*PgBouncer, Postgres", "*replicas", "a folder"]],
    ),
    Stage(
        "3 cache",
        "to 500,000",
        [
            ["clients"],
            ["processes"],
            ["PgBouncer, Postgres", "replicas", "*Redis: answers", "*telemetry", "a folder"],
        ],
    ),
    Stage(
        "4 scale-out",
        "more",
        [
            ["clients", "*load balancer"],
            ["*copy 1", "*copy 2", "*copy N"],
            [
                *("PgBouncer, Postgres", "replicas", "Redis: answers"),
                *("*Redis: sessions", "telemetry", "*S3: files"),
            ],
        ],
    ),
)


def drawn() -> str:
    panels = "\n".join(
        f'<g transform="translate({n % 2 * (WIDTH + 10)},{n // 2 * (HEIGHT + 10)})">'
        f"{''.join(panel(stage))}</g>"
        for n, stage in enumerate(STAGES)
    )
    width, height = 2 * WIDTH + 10, 2 * HEIGHT + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} {height + 2}" '
        f'role="img"><title>The four stages</title><style>{STYLE}</style>\n{panels}\n</svg>\n'
    )


def panel(stage: Stage) -> Iterator[str]:
    yield f'<rect class="panel" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    yield f'<text class="title" x="16" y="28">{stage.title}</text>'
    yield f'<text class="quiet" x="130" y="28">{stage.users} users</text>'
    left = [12, (WIDTH - LAST_WIDTH) / 2 - 10, WIDTH - LAST_WIDTH - 12]
    widths = [BOX_WIDTH, BOX_WIDTH - 24, LAST_WIDTH]
    clients, app, stores = map(middles, stage.columns)
    # Clients meet the last box of their column: the balancer, where there is one.
    edges = [(0, clients[-1], 1, one) for one in app]
    edges += [(1, one, 2, store) for one in app for store in stores]
    for here, start, there, end in edges:
        yield f'<path d="M{left[here] + widths[here]:g} {start:g}L{left[there]:g} {end:g}"/>'
    middle = left[0] + BOX_WIDTH / 2
    yield f'<path d="M{middle:g} {clients[0]:g}L{middle:g} {clients[-1]:g}"/>'
    for x, width, column in zip(left, widths, stage.columns, strict=True):
        for name, y in zip(column, middles(column), strict=True):
            kind = ' class="new"' if name.startswith("*") else ""
            yield f'<rect{kind} x="{x:g}" y="{y - BOX_HEIGHT / 2:g}" width="{width}" '
            yield f'height="{BOX_HEIGHT}" rx="5"/>'
            yield f'<text x="{x + width / 2:g}" y="{y + 5:g}">{name.lstrip("*")}</text>'


def middles(column: Sequence[str]) -> list[float]:
    """The vertical middle of each box."""
    first = HEIGHT / 2 + 16 - (len(column) - 1) * (BOX_HEIGHT + GAP) / 2
    return [first + n * (BOX_HEIGHT + GAP) for n in range(len(column))]


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(), encoding="utf-8")
