"""`rung` itself: help, version, completion, colours."""

import re
import subprocess
import sys

import pytest
from people import Person
from rung import __version__

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_help_names_every_command(person: Person) -> None:
    done = person.types("--help")
    assert done.returncode == 0
    for command in ("new", "status", "advance", "upgrade", "undo"):
        assert f"\n  {command}" in done.stdout


def test_dash_h_shows_the_help(person: Person) -> None:
    assert person.types("-h").stdout == person.types("--help").stdout
    assert person.types("advance", "-h").stdout == person.types("advance", "--help").stdout


def test_help_says_repo_and_never_project(person: Person) -> None:
    for words in ((), ("new",), ("status",), ("advance",), ("upgrade",), ("doctor",), ("undo",)):
        assert "project" not in person.types(*words, "--help").stdout.lower()


@pytest.mark.parametrize("columns", [60, 80])
def test_no_summary_of_a_command_is_cut_off(person: Person, columns: int) -> None:
    person.environment["COLUMNS"] = str(columns)
    shown = person.types("--help").stdout
    commands = shown.partition("Commands:\n")[2]
    assert commands
    assert "..." not in commands
    assert max(map(len, shown.splitlines())) <= columns


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(person: Person, shell: str) -> None:
    asked = {
        "bash": {"COMP_WORDS": "rung adv", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "rung adv"},
        "fish": {"_TYPER_COMPLETE_ARGS": "rung adv", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    person.environment |= {"_RUNG_COMPLETE": f"complete_{shell}", **asked}
    done = person.types()
    assert "advance" in done.stdout
    assert done.stderr == ""


def test_help_imports_few_modules() -> None:
    """162 in November 2026, those of Python's own start included. Time is what they take."""
    asked = [sys.executable, "-X", "importtime", "-m", "rung", "--help"]
    imported = subprocess.run(asked, capture_output=True, text=True, check=True).stderr
    assert 0 < imported.count("import time:") < 250


def test_help_of_new_explains_every_option(person: Person) -> None:
    shown = person.types("new", "--help").stdout
    for option in ("--stage", "--data", "--answers", "--defaults", "--no-git", "--template"):
        assert option in shown


def test_rung_alone_shows_its_help(person: Person) -> None:
    done = person.types()
    assert "Usage: rung" in done.stdout + done.stderr


def test_version_prints_the_version_of_the_installed_package(person: Person) -> None:
    assert person.types("--version").stdout == f"rung {__version__}\n"


def test_python_dash_m_rung_runs_the_same_program(person: Person) -> None:
    assert person.runs(sys.executable, "-m", "rung", "--version").stdout == f"rung {__version__}\n"


def test_windows_itself_is_refused_in_one_line() -> None:
    code = "import sys; sys.platform = 'win32'; import rung.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("rung: Rung needs Linux, macOS or WSL.")


def test_an_unknown_command_is_a_usage_error(person: Person) -> None:
    done = person.types("nwe")
    assert done.returncode == 2
    assert "nwe" in done.stderr


@pytest.mark.parametrize("heavy", ["copier", "rich", "jinja2", "yaml", "pydantic"])
def test_help_does_not_import_heavy_packages(heavy: str) -> None:
    code = f"import sys, rung.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_output_without_a_terminal_has_no_colours(person: Person) -> None:
    done = person.types("new", "shop")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_shows_a_spinner(person: Person) -> None:
    with person.at_a_terminal("new", "shop", "--defaults") as terminal:
        assert terminal.wait_for_the_end() == 0
        assert "Rendering" in terminal.shown
        assert COLOUR.search(terminal.shown)


def test_no_color_is_respected_at_a_terminal(person: Person) -> None:
    person.environment["NO_COLOR"] = "1"
    with person.at_a_terminal("new", "shop", "--defaults") as terminal:
        assert terminal.wait_for_the_end() == 0
        assert "Rendering" in terminal.shown
        assert not COLOUR.search(terminal.shown)


def test_an_unexpected_error_is_one_line_and_a_variable_shows_its_traceback(person: Person) -> None:
    code = "import rung.cli; rung.cli.run = lambda: 1 / 0\nfrom rung.__main__ import main; main()"
    done = person.runs(sys.executable, "-c", code)
    assert done.returncode == 1
    assert done.stderr.startswith("rung: This is a bug of Rung: ZeroDivisionError: division by")
    assert done.stderr.count("\n") == 1
    person.environment["RUNG_TRACEBACK"] = "1"
    assert "Traceback" in person.runs(sys.executable, "-c", code).stderr


@pytest.mark.parametrize("words", [("new", "a", "b"), ("status", "--jsn"), ("advance", "--to=x")])
def test_a_refusal_ends_with_a_period_before_the_advice(
    person: Person, words: tuple[str, ...]
) -> None:
    done = person.types(*words)
    assert done.returncode == 2
    assert re.search(rf"[.?] See rung {words[0]} --help\.\n\Z", done.stderr)
