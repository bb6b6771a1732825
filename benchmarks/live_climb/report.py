"""The table of a climb, and its page with a time line."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ledger import Counts
from plan import QUIET

LIMIT = 3  # times the quiet p99
HEAD = (
    "| step | s | requests | failed | p50 ms | p99 ms | quiet p99s | logged out | lost "
    "| stale | revived | asked again | announced | given up | s until a write |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(one: Counts, quiet: Counts) -> str:
    """Beside the p99 of the first step, in which nothing happens."""
    times = one.p99 / quiet.p99 if quiet.p99 else 0.0
    cells = (
        f"{one.seconds:.0f}",
        f"{len(one.milliseconds):,}",
        *(one.failed, f"{one.p50:.1f}", f"{one.p99:.1f}", f"{times:.1f}"),
        *(one.logged_out, one.lost, one.stale, one.revived, one.asked_again, one.announced),
        *(one.given_up, f"{one.until_written:.1f}" if one.until_written else ""),
    )
    return f"| {one.name} | " + " | ".join(str(cell) for cell in cells) + " |"


def total(steps: Sequence[Counts]) -> Counts:
    all_of_them = Counts("all")
    for one in steps:
        all_of_them.milliseconds.counted += one.milliseconds.counted
        all_of_them.seconds += one.seconds
        for name in (
            "announced",
            "asked_again",
            "failed",
            "logged_out",
            "lost",
            "stale",
            "revived",
            "given_up",
        ):
            setattr(all_of_them, name, getattr(all_of_them, name) + getattr(one, name))
        all_of_them.until_written = max(all_of_them.until_written, one.until_written)
    return all_of_them


def write_page(file: Path, steps: Sequence[Counts], seen: Sequence[str]) -> None:
    """A bar a step: as long as it took, as high as its p99, red if a client saw a fault.

    Quiet steps have their names below. The dashed line is the limit of a step's p99.
    """
    width, height, at = 1000, 160, 0.0
    seconds = sum(one.seconds for one in steps) or 1
    limit = steps[0].p99 * LIMIT if steps else 0.0
    slowest = max([limit, *(one.p99 for one in steps)]) or 1
    line = height - limit / slowest * height
    bars, rows = [], []
    for one in steps:
        w, h = one.seconds / seconds * width, max(2, one.p99 / slowest * height)
        color = "#2a9d5c" if one.is_clean else "#d33"
        title = escape(f"{one.name}: {len(one.milliseconds):,} requests, p99 {one.p99:.0f} ms")
        bars.append(
            f'<rect x="{at:.1f}" y="{height - h:.1f}" width="{max(w - 1, 1):.1f}" height="{h:.1f}"'
            f' fill="{color}"><title>{title}</title></rect>'
        )
        if one.name.endswith(QUIET):
            anchor = "end" if at > width / 2 else "start"
            place = f'x="{at:.0f}" y="{height + 14}" text-anchor="{anchor}"'
            bars.append(f"<text {place}>{escape(one.name.removesuffix(QUIET))}</text>")
        at += w
        cells = row(one, steps[0]).strip("| ").split(" | ")
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    names = HEAD.splitlines()[0].strip("| ").split(" | ")
    heads = "".join(f"<th>{name}</th>" for name in names)
    faults = "".join(f"<li>{escape(one)}</li>" for one in seen) or "<li>none</li>"
    file.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>The live climb</title>
<meta name="viewport" content="width=device-width">
<style>:root {{ color-scheme: light dark }}
body {{ font: 14px system-ui; margin: 2em auto; padding: 0 1em; max-width: {width}px }}
div {{ overflow-x: auto }}
svg {{ min-width: 50em }}
text {{ fill: currentColor }}
td, th {{ padding: 2px 8px; text-align: right; border-bottom: 1px solid #888 }}
td:first-child, th:first-child {{ text-align: left }}</style>
<h1>The live climb</h1>
<p>{seconds:.0f} s. Each bar is a step of a runbook, as high as its p99.
The dashed line is {LIMIT} times the p99 of the first quiet step: {limit:.0f} ms.</p>
<div><svg viewBox="0 0 {width} {height + 20}" width="100%" font-size="12">{"".join(bars)}
<line x2="{width}" y1="{line:.1f}" y2="{line:.1f}" stroke="#888" stroke-dasharray="6"/></svg></div>
<div><table><tr>{heads}</tr>{"".join(rows)}</table></div>
<h2>Faults that clients saw</h2><ul>{faults}</ul></html>
""",
        encoding="utf-8",
    )
