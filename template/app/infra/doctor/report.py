# Rung's file: advancing to another stage may change it.
"""The verdict as text, as JSON and as one page."""

import html
import json
import shutil
import unicodedata
from string import Template
from typing import Any

from app.infra.doctor.evidence import Evidence
from app.infra.doctor.finding import Finding, Judgement
from app.infra.statement_text import shortened

VERSION = 1
STYLE = """:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
pre { border: 1px solid; padding: 1rem; overflow-x: auto; white-space: pre-wrap }"""
PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width"><style>$style</style>
<h1>$title</h1>
<pre>$text</pre>
<details><summary>Evidence</summary><pre>$evidence</pre></details>
</html>
""")


def title(judgement: Judgement, evidence: Evidence) -> str:
    if judgement.verdict.advance_to:
        return f"advance to stage {judgement.verdict.advance_to}"
    if judgement.is_undecided:
        return "not known"
    return f"stay at stage {evidence.stage}"


def as_text(judgement: Judgement, evidence: Evidence) -> str:
    verdict = judgement.verdict
    when = f"{evidence.window_s:.0f} s, {evidence.at:%Y-%m-%d %H:%M} UTC"
    room = max(shutil.get_terminal_size((120, 24)).columns - 5, 60)
    lines = [
        f"rung doctor: {title(judgement, evidence)}    {when}",
        f"  In front of you: {verdict.text}",
        *(f"    {shortened(line, room)}" for line in verdict.evidence),
        f"  Do       {verdict.do}    {verdict.runbook}",
    ]
    if verdict.rule != "stay" and not judgement.is_undecided:
        lines.append("  Then     run this again")
    also = ", ".join(dict.fromkeys(one.text for one in judgement.also)) or "nothing"
    lines.append(f"  Also     {also}")
    skipped = [
        f"  Skipped  {one.source}: {one.why}. To add it: {one.remedy}" for one in evidence.skipped
    ]
    # Names come from the database and the log, and evidence from strangers.
    every = [*lines, *skipped, *_picture(evidence), f"  {_numbers(evidence)}"]
    return "\n".join(map(printable, every))


def printable(text: str) -> str:
    """One line that moves no cursor."""
    return "".join(one if one.isprintable() else " " for one in text)


def columns(text: str) -> int:
    """How many columns of a terminal the text takes. A letter of Hangul takes two."""
    letters = unicodedata.normalize("NFC", text)  # macOS writes a syllable as several.
    wide = sum(unicodedata.east_asian_width(one) in "FW" for one in letters)
    return len(letters) + wide - sum(map(bool, map(unicodedata.combining, letters)))


def padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def as_json(judgement: Judgement, evidence: Evidence) -> str:
    def found(one: Finding) -> dict[str, Any]:
        return {**one.model_dump(), "runbook": one.runbook}

    return json.dumps(
        {
            "version": VERSION,
            "stage": evidence.stage,
            "at": evidence.at.isoformat(),
            "window_s": round(evidence.window_s, 1),
            "verdict": found(judgement.verdict),
            "also": [found(one) for one in judgement.also],
            "skipped": [one.model_dump() for one in evidence.skipped],
            "exit_code": judgement.exit_code(evidence),
        },
        indent=2,
    )


def as_html(judgement: Judgement, evidence: Evidence) -> str:
    name = f"rung doctor: {title(judgement, evidence)}"
    return PAGE.substitute(
        style=STYLE,
        title=html.escape(name),
        text=html.escape(as_text(judgement, evidence)),
        evidence=html.escape(evidence.model_dump_json(indent=2)),
    )


def _picture(evidence: Evidence) -> list[str]:
    requests = evidence.requests
    if not requests or requests.db_ms is None or not requests.total_ms:
        return []
    database = min(requests.db_ms / requests.total_ms, 1.0)
    pool = min((requests.wait_ms or 0.0) / requests.total_ms, 1.0 - database)
    parts = {"database": database, "pool": pool, "app and others": 1 - database - pool}
    return [
        f"  {name:14} {'█' * round(share * 30):30} {share:4.0%}" for name, share in parts.items()
    ]


def _numbers(evidence: Evidence) -> str:
    found = []
    if requests := evidence.requests:
        per_second = requests.count / requests.seconds if requests.seconds else 0.0
        errors = requests.errors / max(requests.count, 1)
        found.append(f"{per_second:.0f} requests/s, p95 {requests.p95_ms:.0f} ms, 5xx {errors:.0%}")
    common = {"database": evidence.database} if evidence.database else {}
    for name, database in (common | evidence.others).items():
        known = f" of {database.processors} processors" if database.processors else " processors"
        found.append(f"the {name} keeps {database.on_processor:.1f}{known} busy")
    return "; ".join(found) or "nothing could be read"
