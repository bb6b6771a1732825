"""Prints a fleet as a table."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from rung.errors import printable
from rung.fleet.survey import NOT_RUNGS, Row

_LONGEST = {"repo": 40, "version": 20, "options": 40, "owner": 24, "doctor": 40}


def table(rows: Sequence[Row], *, drift: bool) -> Iterator[str]:
    """A row with a problem shows the problem in place of the missing cells."""
    names = ["repo", "stage", "version", "behind", "options", "owner", "doctor"]
    names += ["edited"] if drift else []
    lines = [_cells(row, names) for row in rows]
    widths = [
        max(len(name), *(cell_len(cells[n]) for cells in lines if n < len(cells)), 0)
        for n, name in enumerate(names)
    ]
    for cells, row in zip([names, *lines], [None, *rows], strict=True):
        padded = (set_cell_size(*cell) for cell in zip(cells, widths, strict=False))
        problem = f"  {printable(row.problem)}" if row and row.problem else ""
        yield ("  ".join(padded).rstrip() + problem).rstrip()
        for path in (row.edited or []) if row else []:
            yield f"    {printable(path)}"


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    options = ", ".join(
        key if value is True else f"{key}={value}"
        for key, value in row.options.items()
        if value is not False
    )
    cells = {
        "repo": row.repo,
        "stage": str(row.stage),
        "version": row.version,
        "behind": "?" if row.behind is None else str(row.behind),
        "options": options,
        "owner": row.owner,
        "doctor": row.doctor,
        "edited": "?" if row.edited is None else str(len(row.edited)),
    }
    shown = names if row.stage is not None else names[:1]
    return [_cut(printable(cells[name]), _LONGEST.get(name, 8)) for name in shown]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def summary(rows: Sequence[Row]) -> str:
    by_stage = Counter(row.stage for row in rows if row.stage is not None)
    parts = [f"{count} at stage {stage}" for stage, count in sorted(by_stage.items())]
    if behind := sum(1 for row in rows if row.behind):
        parts.append(f"{behind} behind")
    if others := sum(row.problem == NOT_RUNGS for row in rows):
        parts.append(f"{others} not Rung's")
    if broken := sum(row.is_unread for row in rows):
        parts.append(f"{broken} cannot be read")
    repos = "1 repo" if len(rows) == 1 else f"{len(rows)} repos"
    return f"{repos}: {', '.join(parts) or 'none'}"
