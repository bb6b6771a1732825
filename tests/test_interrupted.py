"""Ctrl-C or a kill at each step of `rung new` leaves the disk as it was, and one line says so."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from people import Person, git, outcome, slow_down, wait_until_there

pytestmark = pytest.mark.slow

STOPPED = "rung: Stopped. Nothing was created.\n"


@pytest.mark.parametrize(
    ("program", "step"),
    [
        ("git", "clone"),
        ("uv", "lock"),
        *(("git", step) for step in ("init", "checkout", "add", "commit")),
    ],
)
def test_ctrl_c_at_each_step_leaves_no_trace(
    person: Person, tmp_path: Path, program: str, step: str
) -> None:
    reached = tmp_path / "reached"
    slow_down(person, program, step, reached)
    with person.leaving_no_trace():
        process = person.starts("new", "shop")
        wait_until_there(reached)
        os.killpg(process.pid, signal.SIGINT)
        assert outcome(process) == (1, "", STOPPED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ["clone", "commit"])
def test_a_kill_of_rung_alone_leaves_no_trace(
    person: Person, tmp_path: Path, step: str, number: signal.Signals
) -> None:
    reached = tmp_path / "reached"
    slow_down(person, "git", step, reached)
    with person.leaving_no_trace():
        process = person.starts("new", "shop")
        wait_until_there(reached)
        process.send_signal(number)
        assert outcome(process) == (1, "", STOPPED)


def test_a_hundred_ctrl_c_leave_no_trace(person: Person, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    slow_down(person, "git", "commit", reached)
    with person.leaving_no_trace():
        process = person.starts("new", "shop")
        wait_until_there(reached)
        with suppress(ProcessLookupError):
            for _ in range(100):  # As fast as possible. Some arrive during the cleanup.
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.001)
        code, _, errors = outcome(process)
        assert errors == STOPPED
        assert code in {1, -signal.SIGINT}  # The last signals reach a Python that is shutting down.


def test_ctrl_c_leaves_an_existing_folder_empty(person: Person, tmp_path: Path) -> None:
    (person.desk / "shop").mkdir()
    reached = tmp_path / "reached"
    slow_down(person, "git", "commit", reached)
    with person.leaving_no_trace():
        process = person.starts("new", "shop")
        wait_until_there(reached)
        os.killpg(process.pid, signal.SIGINT)
        assert outcome(process) == (1, "", STOPPED)


@pytest.mark.parametrize("hundredths", range(5, 100, 12))
def test_ctrl_c_at_any_moment_leaves_all_or_nothing(person: Person, hundredths: int) -> None:
    process = person.starts("new", "shop")
    try:
        process.wait(hundredths / 100)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    code, _, errors = outcome(process)
    if person.leftovers():
        assert person.leftovers() == ["shop"]
        assert git("status", "--porcelain", cwd=person.desk / "shop") == ""
        assert "Nothing" not in errors
    else:
        assert code != 0


def test_ctrl_c_at_a_question_leaves_no_trace(person: Person) -> None:
    with person.leaving_no_trace(), person.at_a_terminal("new", "shop") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\x03")
        assert terminal.wait_for_the_end() == 1
        assert "Stopped. Nothing was created." in terminal.shown
        assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("ends", ["ctrl-c", "ctrl-d"])
def test_ctrl_c_or_ctrl_d_before_the_last_enter_leaves_no_trace(person: Person, ends: str) -> None:
    words = ("new", "shop", "--stage", "1", "--data", "team=tea")
    with person.leaving_no_trace(), person.at_a_terminal(*words) as terminal:
        for question in ("called, for people?", "name for machines", "what it is for"):
            terminal.wait_for(question)
            terminal.press("\r")
        terminal.wait_for("Enter creates the repo")
        terminal.wait_until_it_listens()
        if ends == "ctrl-c":
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.press("\x04")
        assert terminal.wait_for_the_end() == 1
        assert "Stopped. Nothing was created." in terminal.shown
        assert "Traceback" not in terminal.shown


def test_a_kill_at_a_question_leaves_no_trace(person: Person) -> None:
    with person.leaving_no_trace(), person.at_a_terminal("new", "shop") as terminal:
        terminal.wait_for("called, for people?")
        terminal.process.terminate()
        assert terminal.wait_for_the_end() == 1
        assert "Stopped. Nothing was created." in terminal.shown
        assert "Traceback" not in terminal.shown


def test_the_end_of_input_at_a_question_leaves_no_trace(person: Person) -> None:
    with person.leaving_no_trace(), person.at_a_terminal("new", "shop") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\x15\x0b\x04")
        terminal.press("\x04")
        assert terminal.wait_for_the_end() == 1
        assert "Traceback" not in terminal.shown
