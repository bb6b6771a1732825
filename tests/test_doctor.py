"""`rung doctor`: runs the project's own, and `rung advance` shows its last verdict."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from conftest import REPO, Render
from growing import Repo
from people import RUNG, Person, git
from rung.doctor import VERDICT, last_verdict
from serving import free_port, make_dev
from variants import VARIANTS

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def keep(folder: Path, *, hours: float = 3, stage: int | None = None, rule: str = "index") -> None:
    verdict = {"rule": rule, "text": "an index is missing on orders", "advance_to": stage}
    at = (NOW - timedelta(hours=hours)).isoformat()
    (folder / VERDICT).parent.mkdir(exist_ok=True)
    (folder / VERDICT).write_text(json.dumps({"version": 1, "at": at, "verdict": verdict}))


@pytest.mark.parametrize(
    ("hours", "stage", "rule", "told"),
    [
        (3, None, "index", "Doctor, 3 hours ago: stay. It saw: an index is missing on orders."),
        (25, 3, "cache", "Doctor, 1 day ago: advance to stage 3. It saw: "),
        (0, None, "not-known", "Doctor, less than a minute ago: not known. It saw: "),
    ],
)
def test_the_last_verdict_is_shown_with_its_age(
    tmp_path: Path, hours: float, stage: int | None, rule: str, told: str
) -> None:
    keep(tmp_path, hours=hours, stage=stage, rule=rule)

    assert last_verdict(tmp_path, NOW).startswith(told)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "null", '{"verdict": {}}', '{"verdict": 1, "at": 2}']
)
def test_without_a_verdict_rung_doctor_says_how_to_get_one(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / VERDICT).parent.mkdir()
        (tmp_path / VERDICT).write_text(content)

    assert last_verdict(tmp_path, NOW).endswith("To measure first: rung doctor")


def test_a_folder_that_is_no_project_has_no_doctor(person: Person) -> None:
    done = person.types("doctor")

    assert done.returncode != 0
    assert "is not a repo of Rung's" in done.stderr


def test_a_project_of_an_older_template_is_told_to_upgrade(repo: Repo) -> None:
    done = repo.rung("doctor")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rung: This repo has no doctor yet. Run rung upgrade first.\n"


def test_advance_shows_the_last_verdict_before_it_asks(repo: Repo) -> None:
    keep(repo.folder)
    (repo.folder / ".git" / "info" / "exclude").write_text(".dev/\n")
    with repo.person.at_a_terminal("advance", repo.folder) as terminal:
        terminal.wait_for("[y/N]")
        terminal.press("\r")
        terminal.wait_for_the_end()

    assert "ago: stay. It saw: an index is missing on orders." in terminal.shown


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--evidence", "new.json"], ["--evidence", "HERE/new.json"]),
        (["--html=page.html"], ["--html=HERE/page.html"]),
        (["--log", "-", "--seconds", "5"], ["--log", "-", "--seconds", "5"]),
        (
            ["--from", "a.json", "b.json", "--json"],
            ["--from", "HERE/a.json", "HERE/b.json", "--json"],
        ),
    ],
)
def test_files_are_those_of_the_folder_where_somebody_types(
    repo: Repo, tmp_path: Path, typed: list[str], told: list[str]
) -> None:
    """Also files that do not exist yet."""
    main = repo.folder / "app" / "infra" / "doctor" / "__main__.py"
    main.parent.mkdir(parents=True)
    main.touch()
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > called\n')
    uv.chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()

    done = rung(repo.folder, *typed, at=here, UV=str(uv))

    assert (done.returncode, done.stderr) == (0, "")

    called = (repo.folder / "called").read_text().splitlines()
    assert called[-len(told) :] == [one.replace("HERE", str(here.resolve())) for one in told]


def test_variables_that_name_another_project_or_repository_change_nothing(repo: Repo) -> None:
    repo.write("app/infra/doctor/__main__.py", "")
    uv = repo.person.temporary.parent / "uv"
    uv.write_text("#!/bin/sh\nenv\n")
    uv.chmod(0o755)
    named = ("GIT_DIR", "GIT_WORK_TREE", "UV_PROJECT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY")
    repo.person.environment |= dict.fromkeys(named, "/nowhere") | {"UV": str(uv)}

    done = repo.rung("doctor")

    assert (done.returncode, done.stderr) == (0, "")
    assert "/nowhere" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_rung_reaches_the_doctor(
    repo: Repo, tmp_path: Path, number: signal.Signals
) -> None:
    repo.write("app/infra/doctor/__main__.py", "")
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\ntrap 'exit 7' INT TERM HUP\necho runs\nwhile :; do sleep 0.1; done\n")
    uv.chmod(0o755)
    with subprocess.Popen(
        ["env", "--default-signal=INT", RUNG, "doctor"],
        cwd=repo.folder,
        env=os.environ | {"UV": str(uv)},
        stdout=subprocess.PIPE,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"runs\n"
            process.send_signal(number)  # to it alone, as a supervisor does
            assert process.wait(30) == 7
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def rung(*words: str | Path, at: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUNG, "doctor", *words],
        cwd=at,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def visited(url: str) -> Iterator[None]:
    stop = threading.Event()

    def visit() -> None:
        while not stop.wait(0.02):
            with urlopen(url) as page:
                page.read()

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        stop.set()
        visitor.join()


RECORDED = REPO / "template" / "tests" / "infra" / "doctor" / "recorded.json"
CODES = {"healthy": 0, "missing index": 1, "no traffic": 3, "the same reads": 4}


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=["first", "last"])
def test_the_doctor_measures_the_running_service_and_judges_kept_evidence(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: dict[str, Any]
) -> None:
    project, here = tmp_path / "shop", tmp_path / "here"
    here.mkdir()
    shutil.copytree(render(variant), project)
    git("init", "--quiet", cwd=project)
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("LOG_PROCESS_SECONDS", "1")

    with make_dev(project, free_port()) as url:
        log = project.with_suffix(".log")
        options = ["--url", url, "--log", str(log), "--seconds", "3"]
        with visited(f"{url}/products?limit=3"):
            looked = rung(project, *options, "--json", "--evidence", "kept.json", at=here)
            made = subprocess.run(
                ["make", "doctor", f"ARGS={' '.join(map(str, options))} --html page.html"],
                cwd=project,
                env={name: value for name, value in os.environ.items() if "MAKE" not in name},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

    assert looked.stdout, looked.stderr
    verdict = json.loads(looked.stdout)
    kept = json.loads((here / "kept.json").read_text())
    assert (verdict["exit_code"], verdict["skipped"]) == (looked.returncode, []), looked.stderr
    assert verdict["stage"] == variant["stage"]
    assert kept["requests"]["routes"][0]["route"] == "GET /products"
    assert kept["database"]["statements"]
    assert set(kept["capabilities"]) == (
        {"replicas", "the cache", "login sessions"} if kept["readers"] else set()
    )
    assert bool(kept["readers"]) is variant["replica_routing"]
    assert "127.0.0.1" not in json.dumps(kept)
    assert "rung doctor: " in made.stdout, made.stderr
    assert "Skipped" not in made.stdout
    assert (project / "page.html").is_file()
    assert "minute ago" in last_verdict(project)

    if variant["stage"] == 1:
        _judges_again(project, here)


def _judges_again(project: Path, here: Path) -> None:
    table = rung(project, "--from", "kept.json", "kept.json", at=here)
    assert table.returncode == 0
    assert len(table.stdout.splitlines()) == 3
    for case in json.loads(RECORDED.read_text()):
        if case["case"] in CODES:
            (here / "case.json").write_text(json.dumps(case["evidence"]))
            judged = rung(project, "--from", "case.json", at=here)
            assert judged.returncode == CODES[case["case"]], judged.stdout
    (here / "stranger.json").write_text("{}")
    assert rung(project, "--from", "stranger.json", at=here).returncode == 2
