# Rung's file: advancing to another stage may change it.
"""python -m app.infra.doctor: the one bottleneck in front of you, or "stay"."""

import os

if __name__ == "__main__":
    # Yield to the app on this machine. The imports below are half of the doctor's work.
    os.nice(10)

import argparse
import asyncio
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

import structlog
from pydantic import ValidationError

from app.infra import commands, environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor import readiness, report, request_log
from app.infra.doctor.capabilities import CAPABILITIES
from app.infra.doctor.capacity import processors
from app.infra.doctor.evidence import VERSION, Database, Evidence, Process, Requests, Skipped
from app.infra.doctor.finding import Capability, CapabilityEvidence, Missing, Window
from app.infra.doctor.looking import Limited, Refused, gap, look_at_postgres
from app.infra.doctor.rules import judge
from app.infra.failures import NotConnected

USAGE = 2
INTERRUPTED = 130
MOST_EVIDENCE_BYTES = 16 << 20
LAST = Path(".dev/doctor.json")


def main() -> None:
    options = parsed()
    # The app's own code logs to stdout, where a program expects the verdict.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if options.given:
        evidence = [load(file) for file in options.given]
        if len(evidence) > 1:
            print(table(options.given, evidence))
            return
        sys.exit(conclude(evidence[0], options))
    code = INTERRUPTED

    def end_at_once(*_: object) -> None:
        # KeyboardInterrupt leaves a traceback when it meets asyncio.run as it starts or ends.
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\r\x1b[K")
        os._exit(code)

    signal.signal(signal.SIGINT, end_at_once)
    try:
        code = conclude(look(options), options)
        while options.watch:
            code = conclude(look(options), options)
    except environment.EnvironmentIncomplete as error:
        refuse(str(error))
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(f"doctor: {message.rstrip('.')}. All options: --help")


def parsed() -> argparse.Namespace:
    parser = Parser(prog="doctor", description=__doc__)
    parser.add_argument("--seconds", type=_seconds, default=30.0, help="duration; default: 30")
    parser.add_argument("--log", type=_log, metavar="FILE", help="the app's JSON log; - for a pipe")
    parser.add_argument("--database-cpus", type=_count, help="processors of the database's server")
    parser.add_argument("--url", type=readiness.address, help="the app's address, to ask /ready")
    parser.add_argument("--json", action="store_true", help="the verdict as JSON, version 1")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="write the evidence to FILE")
    parser.add_argument(
        "--from", dest="given", type=Path, nargs="+", metavar="FILE", help="judge evidence in FILE"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page to send")
    parser.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")
    options = parser.parse_args()
    if options.watch and options.log == "-":
        parser.error("--watch reads the log again at each look. Name a file: --log FILE")
    if options.watch and options.given:
        parser.error("--watch looks at the running service, --from judges a file: use only one")
    for file in (options.evidence, options.html):
        if file and not file.parent.is_dir():
            parser.error(f"there is no folder {file.parent}. Make it first.")
    return options


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{given} is not a number of seconds from 1 to 3600")
    return seconds


def _log(given: str) -> str:
    if given != "-" and not Path(given).exists():
        raise argparse.ArgumentTypeError(f"there is no file {given}")
    return given


def _count(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= 1024:
        raise argparse.ArgumentTypeError(f"{given} is not a number of processors")
    return int(given)


def load(file: Path) -> Evidence:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_EVIDENCE_BYTES + 1)
        if len(content) > MOST_EVIDENCE_BYTES:
            refuse(f"{file} is larger than any evidence. Make it with --evidence FILE.")
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("kind") != "rung doctor":
            refuse(f"{file} is no evidence of rung doctor. Make one with --evidence FILE.")
        version = found.get("version")
        if isinstance(version, int) and version > VERSION:
            refuse(f"{file} has version {version}, and this doctor reads {VERSION}: rung upgrade.")
        evidence = known(Evidence.model_validate(found))
        evidence.model_dump_json()  # raises UnicodeEncodeError for a lone surrogate
        return evidence
    except OSError as error:
        refuse(f"{file} cannot be read: {error.strerror}.")
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        refuse(f"{file} is no evidence of rung doctor: {place}: {problem['msg']}.")
    except (ValueError, RecursionError):
        refuse(f"{file} is not JSON. Make evidence with --evidence FILE.")


def known(evidence: Evidence) -> Evidence:
    """Raises ValidationError. Evidence of a later stage becomes a "skipped" line."""
    models = {capability.name: capability.model for capability in CAPABILITIES}
    skipped = list(evidence.skipped)
    for name, found in evidence.capabilities.items():
        if name in models:
            models[name].model_validate(found)
        else:
            why, remedy = "this stage has no rules for it", "judge it in a repo of its stage"
            skipped.append(Skipped(source=name[:80], why=why, remedy=remedy))
    return evidence.model_copy(update={"skipped": skipped})


def refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(USAGE)


def look(options: argparse.Namespace) -> Evidence:
    settings = environment.read(DatabaseSettings)
    began = time.monotonic()
    window = Window(options.seconds, options.database_cpus or processors(settings, "database_cpus"))
    postgres, looks = asyncio.run(look_at_all(settings, window))
    found = looks.values()
    say("/ready")
    unavailable, not_ready = readiness.look(options.url)
    say("the log")
    requests, process, problems = read_log(options)
    say("")
    skipped = [one for capability in found for one in capability.skipped]
    return Evidence(
        stage=stage(),
        at=datetime.now(UTC),
        window_s=max(time.monotonic() - began, 0.001),
        service=Path.cwd().name,
        refused=postgres.refused,
        limited=postgres.limited,
        database=postgres.database,
        requests=requests,
        process=process,
        unavailable=unavailable,
        readers=[reader for capability in found for reader in capability.readers],
        others={name: one for capability in found for name, one in capability.others.items()},
        readers_of={name: one for each in found for name, one in each.readers_of.items()},
        capabilities={name: one.seen.model_dump() for name, one in looks.items() if one.seen},
        skipped=[*postgres.skipped, *skipped, *not_ready, *problems],
    )


class Postgres(NamedTuple):
    database: Database | None
    skipped: list[Skipped]
    refused: bool = False
    limited: bool = False


async def look_at_all(
    settings: DatabaseSettings, window: Window
) -> tuple[Postgres, dict[str, CapabilityEvidence]]:
    """Looks at all servers at the same time, so that all see the same load."""
    asked = asyncio.gather(*(ask(one, window) for one in CAPABILITIES))
    postgres, found = await asyncio.gather(look_at_primary(settings, window), asked)
    names = [capability.name for capability in CAPABILITIES]
    return postgres, {name: one for name, one in zip(names, found, strict=True) if one}


async def look_at_primary(settings: DatabaseSettings, window: Window) -> Postgres:
    try:
        return Postgres(*await look_at_postgres(settings, window, say))
    except Refused as error:
        limited = isinstance(error, Limited)
        skipped = [gap("Postgres", error, error.remedy)]
        return Postgres(None, skipped, refused=not limited, limited=limited)
    except NotConnected as error:
        return Postgres(None, [gap("sessions", error, "set DATABASE_URL, and try: make psql")])


async def ask(capability: Capability, window: Window) -> CapabilityEvidence | None:
    try:
        return await capability.look(window)
    except Missing as missing:
        return CapabilityEvidence(None, skipped=[missing.skipped(capability.name)])


def read_log(options: argparse.Namespace) -> tuple[Requests | None, Process | None, list[Skipped]]:
    if options.log is None:
        return None, None, [Missing("no log was given", request_log.LOG).skipped("requests")]
    try:
        place = sys.stdin.buffer if options.log == "-" else Path(options.log)
        requests, process = request_log.read(place, options.seconds)
    except Missing as missing:
        return None, None, [missing.skipped("requests")]
    problems = []
    if requests is None or requests.db_ms is None:
        why = "the log has no request lines with db_calls"
        remedy = "deploy this version of the app, and wait for requests"
        problems.append(Skipped(source="requests", why=why, remedy=remedy))
    if process is None:
        remedy = "wait 60 s (LOG_PROCESS_SECONDS) for one; LOG_LEVEL must be INFO"
        problems.append(Skipped(source="process lines", why="none in the log", remedy=remedy))
    return requests, process, problems


def stage() -> int:
    """The stage, from the folders: production's image has no answers file."""
    here = Path(__file__).parent.parent
    arrived = {"copies": 4, "cache": 3, "slow_queries": 2}
    return next((number for name, number in arrived.items() if (here / name).is_dir()), 1)


def conclude(evidence: Evidence, options: argparse.Namespace) -> int:
    judgement = judge(evidence)
    if options.evidence:
        write(options.evidence, evidence.model_dump_json(indent=2))
    if options.html:
        write(options.html, report.as_html(judgement, evidence))
    if not options.given and LAST.parent.is_dir():
        try:
            LAST.write_text(report.as_json(judgement, evidence) + "\n", encoding="utf-8")
        except OSError as error:
            warning = f"{LAST} cannot be written: {error.strerror}."
            print(f"{warning} rung advance will not know the verdict.", file=sys.stderr)
    shown = report.as_json if options.json else report.as_text
    code = judgement.exit_code(evidence)
    show(shown(judgement, evidence), code)
    return code


def write(file: Path, text: str) -> None:
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        refuse(f"{file} cannot be written: {error.strerror}.")


def show(verdict: str, code: int) -> None:
    """Ends with this code if the reader needs no more, as `head` does."""
    try:
        print(verdict, flush=True)
    except OSError as error:
        commands.drop_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(code)
        refuse(f"The verdict cannot be written: {error.strerror}.")


def table(files: list[Path], found: list[Evidence]) -> str:
    rows = [("file", "stage", "when", "verdict", "in front of it")]
    for file, evidence in zip(files, found, strict=True):
        verdict = judge(evidence)
        rows.append(
            (
                report.printable(evidence.service or file.name),
                str(evidence.stage),
                f"{evidence.at:%Y-%m-%d}",
                report.title(verdict, evidence),
                report.printable(verdict.verdict.text),
            )
        )
    widths = [max(map(report.columns, column)) for column in zip(*rows, strict=True)]
    padded = (map(report.padded, row, widths) for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{f'reading {what} …' if what else ''}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
