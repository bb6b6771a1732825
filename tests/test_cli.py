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
    for command in ("new", "status", "advance", "upgrade"):
        assert f"\n  {command}" in done.stdout


def test_help_of_new_explains_every_option(person: Person) -> None:
    shown = person.types("new", "--help").stdout
    for option in ("--stage", "--data", "--answers", "--defaults", "--no-git", "--template"):
        assert option in shown


def test_rung_alone_shows_its_help(person: Person) -> None:
    done = person.types()
    assert "Usage: rung" in done.stdout + done.stderr


def test_version_is_the_distributions_own(person: Person) -> None:
    assert person.types("--version").stdout == f"rung {__version__}\n"


def test_python_m_rung_is_the_same_program(person: Person) -> None:
    assert person.runs(sys.executable, "-m", "rung", "--version").stdout == f"rung {__version__}\n"


def test_an_unknown_command_is_a_usage_error(person: Person) -> None:
    done = person.types("nwe")
    assert done.returncode == 2
    assert "nwe" in done.stderr


@pytest.mark.parametrize("heavy", ["copier", "rich", "jinja2", "yaml", "pydantic"])
def test_help_does_not_pay_for_what_it_does_not_use(heavy: str) -> None:
    code = f"import sys, rung.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_coloured_away_from_a_terminal(person: Person) -> None:
    done = person.types("new", "shop")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_at_a_terminal_a_spinner_shows_that_it_works(person: Person) -> None:
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
