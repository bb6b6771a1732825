"""`rung new --like`: another project's answers as defaults, and those of a fork."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import REPO
from fleets import ANSWERS, answers, bare_repo
from growing import Repo, release
from people import Person
from rung import presets
from rung.rendering import ANSWERS_FILE


def made(person: Person, *words: str | Path) -> dict[str, object]:
    done = person.types("new", "tea", *words)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load((person.desk / "tea" / ANSWERS_FILE).read_text())
    assert isinstance(read, dict)
    return read


@pytest.fixture
def shop(person: Person) -> Path:
    words = {"stage": 2, "replica_routing": True, "description": "Sells tea", "gone": "old"}
    written = answers("https://example.com/rung.git", **words)
    return bare_repo(person.desk / "shop.git", {ANSWERS: written})


def test_like_with_a_git_url_takes_the_answers_but_not_the_names(
    person: Person, shop: Path
) -> None:
    tea = made(person, "--like", shop.as_uri())
    assert (tea["stage"], tea["replica_routing"], tea["team"]) == (2, True, "tea")
    assert (tea["project_slug"], tea["project_name"]) == ("tea", "Tea")
    assert tea["description"] == "Tea, a backend"
    assert "gone" not in tea


def test_like_with_a_folder_is_overridden_by_data(repo: Repo) -> None:
    repo.edits(ANSWERS_FILE, "team: shop-team", "team: oolong")
    person = repo.person
    tea = made(person, "--like", repo.folder, "--stage", "1", "--data", "description=Hot")
    assert (tea["team"], tea["stage"], tea["description"]) == ("oolong", 1, "Hot")


def test_a_preset_is_one_line_that_status_shows(repo: Repo) -> None:
    repo.edits(ANSWERS_FILE, "team: shop-team", "team: it's tea, hot")
    shown = repo.rung("status").stdout
    [line] = re.findall(r"another +rung new DEST (.+)\n", shown)
    option, preset = shlex.split(line)
    tea = made(repo.person, option, preset)
    assert (tea["team"], tea["project_slug"]) == ("it's tea, hot", "tea")


FORKS_QUESTIONS = """
regions:
  type: str
  multiselect: true
  default: [eu, us]
  choices: [eu, us, asia]

labels:
  type: yaml
  default: {tier: 1}

cost_centre:
  type: int
  default: 1000
"""


@pytest.fixture
def fork(person: Person, own_template: Path) -> Path:
    with (own_template / "copier.yml").open("a") as questions:
        questions.write(FORKS_QUESTIONS)
    release(own_template, "v1.0.0")
    person.environment["RUNG_TEMPLATE"] = str(own_template)
    return own_template


def test_lists_and_mappings_of_a_forks_questions_are_answers_too(
    person: Person, fork: Path
) -> None:
    (person.desk / "mine.yml").write_text("regions: [us, asia]\nlabels: {tier: 2}\n")
    wanted = (["us", "asia"], {"tier": 2})
    shop = made(person, "--defaults", "--answers", "mine.yml")
    assert (shop["regions"], shop["labels"]) == wanted
    (person.desk / "tea").rename(person.desk / "shop")
    tea = made(person, "--like", "shop")
    assert (tea["regions"], tea["labels"]) == wanted


@pytest.mark.parametrize("answer", ["regions=us", "regions=[mars]", "labels=[", "cost_centre=ten"])
def test_a_refused_answer_names_its_question(person: Person, fork: Path, answer: str) -> None:
    done = person.types("new", "tea", "--data", answer)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"rung: {answer.partition('=')[0]}: ")


@pytest.mark.slow
def test_an_option_of_a_later_stage_is_ignored_until_that_stage(person: Person, shop: Path) -> None:
    tea = made(person, "--like", shop.as_uri(), "--stage", "1")
    assert tea["stage"] == 1
    assert "replica_routing" not in tea


BAD: dict[str, tuple[str, str]] = {
    "nothing there": ("nowhere.yml", "cannot be read: No such file"),
    "a folder without answers": (".", "cannot be read: No such file"),
    "a broken line": ('{"stage": 2', "The preset is not YAML"),
    "a list": ("list.yml", "is not a mapping"),
    "no such stage": ("stage.yml", "stage"),
    "a stage in words": ("words.yml", "stage: 'two' is not a number"),
    "a bad team": ("team.yml", "team: Keep it on one line"),
    "a repo that is not there": (
        "file:///nowhere/x.git",
        "The answers of nowhere/x cannot be read: fatal: '/nowhere/x.git' does not appear to be",
    ),
    "nothing": ("", "There is an empty word after --like"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", BAD)
def test_a_source_that_cannot_be_used_is_one_line(person: Person, row: str) -> None:
    files = {
        "list": "- a\n",
        "stage": "stage: 9\n",
        "words": "stage: two\n",
        "team": 'team: "a\\nb"',
    }
    for name, text in files.items():
        (person.desk / f"{name}.yml").write_text(text)
    source, said = BAD[row]
    with person.leaving_no_trace():
        done = person.types("new", "tea", "--like", source)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_the_defaults_file_answers_only_questions_of_the_template() -> None:
    """`rung new` ignores the others, for example after a fork has renamed its question."""
    questions = yaml.safe_load((REPO / "copier.yml").read_text())
    assert presets.company_defaults().keys() - questions.keys() == set()
