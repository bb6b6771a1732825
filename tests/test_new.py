"""`rung new`: what it makes, asks and leaves alone."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO
from people import Person, content, git


def answers_of(project: Path) -> dict[str, Any]:
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert isinstance(recorded, dict)
    return recorded


def test_a_project_is_rendered_locked_and_committed(person: Person) -> None:
    done = person.types("new", "web-shop")
    shop = person.desk / "web-shop"
    assert (done.returncode, done.stderr) == (0, "")
    assert (shop / "app" / "settings.py").is_file()
    assert (shop / "uv.lock").is_file()
    assert git("status", "--porcelain", "--ignored", cwd=shop) == ""
    assert git("log", "--format=%an: %s", cwd=shop) == (
        "Ada Lovelace: Start web-shop at stage 1 (foundation)\n"
    )
    assert git("branch", "--show-current", cwd=shop) == "main\n"


def test_it_ends_with_the_two_commands_to_type_next(person: Person) -> None:
    assert person.types("new", "shop").stdout.endswith("\n    cd shop\n    make dev\n")


def test_nothing_but_the_project_is_left_behind(person: Person) -> None:
    person.types("new", "shop")
    assert person.leftovers() == ["shop"]


def test_the_name_of_the_folder_suggests_the_name_of_the_project(person: Person) -> None:
    person.types("new", "web-shop")
    answers = answers_of(person.desk / "web-shop")
    assert (answers["project_name"], answers["project_slug"]) == ("Web Shop", "web-shop")


def test_the_project_records_where_its_template_is(person: Person, small_template: Path) -> None:
    person.types("new", "shop")
    answers = answers_of(person.desk / "shop")
    assert (answers["_src_path"], answers["_commit"]) == (str(small_template), "v0.1.0")


def test_data_answers_a_question(person: Person) -> None:
    person.types("new", "shop", "--data", "project_name=Tea = Life", "--data", "team=leaves")
    answers = answers_of(person.desk / "shop")
    assert (answers["project_name"], answers["team"]) == ("Tea = Life", "leaves")


def test_the_option_stage_sets_the_answer(person: Person) -> None:
    assert "stage 1 (foundation)" in person.types("new", "shop", "--stage", "1").stdout


def test_data_beats_the_answers_file(person: Person) -> None:
    (person.desk / "ours.yml").write_text("team: platform\ndescription: Sells tea\n")
    person.types("new", "shop", "--answers", "ours.yml", "--data", "team=leaves")
    answers = answers_of(person.desk / "shop")
    assert (answers["team"], answers["description"]) == ("leaves", "Sells tea")


def test_another_projects_answers_serve_as_an_answers_file(
    person: Person, small_template: Path
) -> None:
    person.types("new", "shop", "--data", "team=leaves")
    done = person.types("new", "inn", "--answers", "shop/.copier-answers.yml")
    assert done.returncode == 0, done.stderr
    assert answers_of(person.desk / "inn")["team"] == "leaves"


def test_no_git_makes_no_repository(person: Person) -> None:
    person.environment["GIT_CONFIG_GLOBAL"] = os.devnull
    done = person.types("new", "shop", "--no-git")
    assert done.returncode == 0, done.stderr
    assert (person.desk / "shop" / "uv.lock").is_file()
    assert not (person.desk / "shop" / ".git").exists()


def test_without_uv_the_project_is_created_and_one_line_says_that_uv_is_missing(
    person: Person,
) -> None:
    git_alone = person.desk.parent / "bin"
    git_alone.mkdir()
    (git_alone / "git").symlink_to(shutil.which("git") or "")
    without_uv = [f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "uv").exists()]
    del person.environment["UV"]
    person.environment["XDG_CACHE_HOME"] = str(person.temporary.parent / "cache")
    person.environment["PATH"] = os.pathsep.join([str(git_alone), *without_uv])
    done = person.types("new", "shop")
    assert done.returncode == 0
    assert done.stderr == (
        "Dependencies are not locked (uv is not installed): run `sh dev/uv lock` in the repo.\n"
    )
    assert git("status", "--porcelain", cwd=person.desk / "shop") == ""


def test_a_lock_that_fails_does_not_stop_the_project(person: Person) -> None:
    broken = person.temporary.parent / "uv"
    broken.write_text("#!/bin/sh\necho half > uv.lock\necho 'no network' >&2\nexit 2\n")
    broken.chmod(0o755)
    person.environment["UV"] = str(broken)
    done = person.types("new", "shop")
    assert done.returncode == 0
    not_locked = "Dependencies are not locked (no network): run `sh dev/uv lock` in the repo.\n"
    assert done.stderr == not_locked
    assert not (person.desk / "shop" / "uv.lock").exists()


def test_an_empty_folder_that_exists_is_filled_and_stays_the_same_folder(person: Person) -> None:
    shop = person.desk / "shop"
    shop.mkdir(mode=0o750)
    before = shop.stat()
    done = person.types("new", "shop")
    assert done.returncode == 0, done.stderr
    assert (shop.stat().st_ino, shop.stat().st_mode) == (before.st_ino, before.st_mode)
    assert git("status", "--porcelain", cwd=shop) == ""


def test_the_current_folder_can_be_filled(person: Person) -> None:
    here = person.desk / "shop"
    here.mkdir()
    done = person.types("new", ".", at=here)
    assert done.returncode == 0, done.stderr
    assert answers_of(here)["project_name"] == "Shop"
    assert done.stdout.endswith("Next:\n\n    make dev\n")


@pytest.mark.slow
def test_a_folder_that_the_finder_of_macos_has_shown_is_empty(person: Person) -> None:
    (person.desk / "shop").mkdir()
    (person.desk / "shop" / ".DS_Store").touch()
    assert person.types("new", "shop").returncode == 0
    assert git("status", "--porcelain", cwd=person.desk / "shop") == ""
    assert git("ls-files", ".DS_Store", cwd=person.desk / "shop") == ""
    assert git("check-ignore", ".DS_Store", cwd=REPO) == ".DS_Store\n"


def test_missing_parent_folders_are_made(person: Person) -> None:
    done = person.types("new", "services/eu/shop")
    assert done.returncode == 0, done.stderr
    assert answers_of(person.desk / "services/eu/shop")["project_slug"] == "shop"


def test_a_path_may_hold_spaces_and_letters_of_any_language(person: Person) -> None:
    done = person.types("new", "Läden & Cafés/mein 店", "--data", "project_slug=laden")
    assert done.returncode == 0, done.stderr
    assert "    cd 'Läden & Cafés/mein 店'\n" in done.stdout
    assert answers_of(person.desk / "Läden & Cafés" / "mein 店")["project_name"] == "Mein 店"


def test_a_folder_whose_name_macos_has_decomposed_gives_the_same_names(person: Person) -> None:
    done = person.types("new", "Lu\u0308beck", "--no-git")
    assert done.returncode == 0, done.stderr
    answers = answers_of(person.desk / "Lu\u0308beck")
    assert (answers["project_name"], answers["project_slug"]) == ("Lübeck", "luebeck")


def test_a_place_that_no_virtual_environment_can_have_is_refused(person: Person) -> None:
    """uv would make none there: PATH has no way to write a colon."""
    done = person.types("new", "shop:2", "--no-git")
    assert done.returncode == 2
    assert "holds a colon, so no virtual environment works there" in done.stderr
    assert not list(person.desk.iterdir())


def test_a_terminal_is_asked_what_is_missing(person: Person) -> None:
    with person.at_a_terminal("new", "tea-house", "--data", "team=leaves") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\r")
        terminal.wait_for("name for machines")
        terminal.press("\r")
        terminal.wait_for("what it is for")
        terminal.press(", with cake\r")
        terminal.wait_for("stage of growth?")
        terminal.press("\r")
        terminal.wait_for("Enter creates the repo")
        terminal.press("\r")
        assert terminal.wait_for_the_end() == 0
        assert "owns it" not in terminal.shown
    answers = answers_of(person.desk / "tea-house")
    assert (answers["project_name"], answers["team"]) == ("Tea House", "leaves")
    assert answers["description"] == "Tea House, a backend, with cake"


def test_a_typed_byte_that_is_not_utf8_is_no_part_of_an_answer(person: Person) -> None:
    words = ("--data", "project_slug=shop", "--data", "team=tea", "--stage", "1")
    person.environment["PYTHONIOENCODING"] = "utf-8:strict"  # As in a locale such as de_DE.UTF-8.
    with person.at_a_terminal("new", "shop", *words) as terminal:
        for question, keys in (
            ("called, for people?", "\udcff\r"),
            ("what it is for", "\r"),
            ("Enter creates the repo", "\udcff\r"),
        ):
            terminal.wait_for(question)
            terminal.press(keys)
        assert terminal.wait_for_the_end() == 0, terminal.shown
    assert answers_of(person.desk / "shop")["project_name"] == "Shop"


BACK = "\x1b[Z"


def test_ctrl_c_after_going_back_stops(person: Person) -> None:
    with person.at_a_terminal("new", "tea-house") as terminal:
        terminal.wait_for("Shift-Tab goes back a question")
        for question, keys in (
            ("called, for people?", "\r"),
            ("name for machines", BACK),
            ("called, for people?", "\x03"),
        ):
            terminal.wait_for(question)
            terminal.shown = ""
            terminal.press(keys)
        assert terminal.wait_for_the_end() == 1
    assert "Stopped. Nothing was created." in terminal.shown
    assert person.leftovers() == []


def test_a_person_goes_back_question_by_question_and_finds_the_answers_there(
    person: Person,
) -> None:
    with person.at_a_terminal("new", "tea-house", "--data", "team=leaves") as terminal:
        for question, keys in (
            ("called, for people?", "\r"),
            ("name for machines", "-2\r"),
            ("what it is for", "\r"),
            ("stage of growth?", "\x1b[B\x1b[B\x1b[B\r"),
            ("replicas?", "\r"),
            ("Which pooler", "\r"),
            ("its own database?", "\r"),
            ("Enter creates the repo, b goes back a question", "b\r"),
            ("its own database?", BACK),
            ("Which pooler", BACK),
            ("replicas?", BACK),
            ("stage of growth?", BACK),
            ("what it is for", BACK),
            ("name for machines", BACK),
            ("called, for people?", BACK),
            ("called, for people?", "\r"),
            ("name for machines", "\r"),
            ("what it is for", "\r"),
            ("stage of growth?", "\x1b[A\x1b[A\x1b[A\r"),
            ("Enter creates the repo", "\r"),
        ):
            terminal.wait_for(question)
            terminal.shown = ""
            terminal.press(keys)
        assert terminal.wait_for_the_end() == 0
    answers = answers_of(person.desk / "tea-house")
    assert (answers["project_slug"], answers["stage"]) == ("tea-house-2", 1)
    assert not (person.desk / "tea-house" / "app" / "infra" / "pooling").exists()


@pytest.mark.slow
def test_a_terminal_shows_at_once_that_an_answer_is_impossible(person: Person) -> None:
    with person.at_a_terminal("new", "shop") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\r")
        terminal.wait_for("name for machines")
        terminal.press("_x\r")
        terminal.wait_for("Write it like web-shop")


def test_a_name_in_another_script_is_asked_for_its_slug(person: Person) -> None:
    with person.at_a_terminal("new", "店") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\r")
        terminal.wait_for("name for machines")
        terminal.press("mise\r")
        for _ in range(3):
            terminal.press("\r")
        terminal.wait_for("Enter creates the repo")
        terminal.press("\r")
        assert terminal.wait_for_the_end() == 0
    assert answers_of(person.desk / "店")["project_slug"] == "mise"


@pytest.mark.slow
def test_defaults_ask_nothing_at_a_terminal(person: Person) -> None:
    with person.at_a_terminal("new", "shop", "--defaults") as terminal:
        assert terminal.wait_for_the_end() == 0
    assert answers_of(person.desk / "shop")["project_name"] == "Shop"


def files_of(project: Path) -> dict[str, bytes]:
    tracked = git("ls-tree", "-r", "-z", "--name-only", "HEAD", cwd=project).split("\0")
    return {name: content(project / name) for name in tracked if name}


@pytest.fixture
def plain_files(person: Person) -> dict[str, bytes]:
    person.types("new", "plain", "--data", "project_name=Shop")
    return files_of(person.desk / "plain")


@pytest.mark.parametrize(
    "preference",
    [
        "[core]\n\tautocrlf = true\n\tsafecrlf = true\n",
        pytest.param("[core]\n\texcludesFile = ~/ignored\n", marks=pytest.mark.slow),
        pytest.param("[core]\n\tattributesFile = ~/attributes\n", marks=pytest.mark.slow),
        "[core]\n\thooksPath = ~/hooks\n",
        pytest.param(
            "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = false\n", marks=pytest.mark.slow
        ),
        pytest.param(
            "[init]\n\ttemplateDir = ~/template\n\tdefaultBranch = trunk\n", marks=pytest.mark.slow
        ),
        pytest.param("[status]\n\tshowUntrackedFiles = no\n", marks=pytest.mark.slow),
        "[core]\n\tfsmonitor = true\n",
    ],
)
def test_no_preference_of_the_persons_git_changes_or_stops_the_first_commit(
    person: Person, plain_files: dict[str, bytes], preference: str
) -> None:
    home = person.desk.parent / "home"
    (home / "hooks").mkdir(parents=True)
    (home / "template" / "hooks").mkdir(parents=True)
    for hooks in (home / "hooks", home / "template" / "hooks"):
        for name in ("pre-commit", "commit-msg", "post-checkout", "post-commit"):
            (hooks / name).write_text("#!/bin/sh\necho a hook ran >&2\nexit 1\n")
            (hooks / name).chmod(0o755)
    (home / "ignored").write_text("*.py\n*.toml\n.env*\n")
    (home / "attributes").write_text("*.py eol=crlf\n*.py filter=none-such\n")
    (home / ".gitconfig").write_text(
        Path(person.environment["GIT_CONFIG_GLOBAL"]).read_text(encoding="utf-8") + preference
    )
    person.environment |= {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig")}
    done = person.types("new", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(person.desk / "shop") == plain_files
    assert git("status", "--porcelain", cwd=person.desk / "shop") == ""


@pytest.mark.slow
def test_called_from_another_repositorys_hook_it_leaves_that_repository_alone(
    person: Person, small_template: Path
) -> None:
    other = person.desk / "other"
    git("init", "--quiet", str(other), cwd=person.desk)
    person.environment |= {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
    }
    done = person.types("new", "shop")
    assert done.returncode == 0, done.stderr
    assert (person.desk / "shop" / ".git").is_dir()
    assert git("status", "--porcelain", cwd=other) == ""


def test_files_that_the_repository_around_it_ignores_are_named(person: Person) -> None:
    git("init", "--quiet", cwd=person.desk)
    (person.desk / ".gitignore").write_text("dev/\n.env*\n*.lock\n", encoding="utf-8")
    done = person.types("new", "shop", "--no-git")
    assert done.returncode == 0
    said = "The repository around shop ignores dev/, uv.lock. Add them: git add -f\n"
    assert done.stderr == said


@pytest.mark.slow
def test_uv_locks_the_dependencies(person: Person) -> None:
    del person.environment["UV"]
    done = person.types("new", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'name = "fastapi"' in git("show", "HEAD:uv.lock", cwd=person.desk / "shop")


def test_every_question_fits_60_columns_and_every_reason_80(person: Person) -> None:
    settings = (REPO / "copier.yml").read_text(encoding="utf-8")
    questions = {k: v for k, v in yaml.safe_load(settings).items() if not k.startswith("_")}
    with person.at_a_terminal("new", "tea-house", "--data", "team=leaves") as terminal:
        terminal.wait_for("called, for people?")
        terminal.press("\r")
        terminal.wait_for("for machines")
        terminal.press("_x\r")
        terminal.wait_for("web-shop: a-z 0-9 -")
        terminal.press("\x15tea\r")
        terminal.wait_for("what it is for")
        terminal.press("\r")
        terminal.wait_for("stage of growth?")
        terminal.wait_for("N copies")
        for choice in questions["stage"]["choices"]:
            assert choice in terminal.text
    for name, question in questions.items():
        # Copier begins with "Validation error for question 'NAME': ".
        reasons = re.findall(r"%}([^{]+){%", question.get("validator", ""))
        assert all(len(reason.strip()) + 34 + len(name) <= 80 for reason in reasons)
        # At 60 columns: three for the sign, and seven for (y/N) after it.
        room = 50 if question.get("type") == "bool" else 57
        assert len(question.get("help", "")) <= room
        assert all(len(choice) <= 57 for choice in question.get("choices", ()))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Süß & Salzig", "suess-salzig"),
        pytest.param("Café São Tomé", "cafe-sao-tome", marks=pytest.mark.slow),
        pytest.param("Łódź Œuvre Ærø", "lodz-oeuvre-aero", marks=pytest.mark.slow),
        pytest.param("Web Shop 2", "web-shop-2", marks=pytest.mark.slow),
        # lower() makes two characters of İ, and macOS may write each accent as a second one.
        ("İstanbul", "istanbul"),
        pytest.param("Cafe\u0301 Lu\u0308beck", "cafe-lubeck", marks=pytest.mark.slow),
    ],
)
def test_letters_with_accents_are_spelled_in_latin_ones(
    person: Person, name: str, slug: str
) -> None:
    done = person.types("new", "shop", "--no-git", "--data", f"project_name={name}")
    assert done.returncode == 0, done.stderr
    assert answers_of(person.desk / "shop")["project_slug"] == slug


def test_uv_is_found_where_make_install_put_it(person: Person) -> None:
    fetched = person.temporary.parent / "cache" / "uv-bootstrap" / "uv"
    fetched.parent.mkdir(parents=True)
    shutil.copy(person.environment.pop("UV"), fetched)
    person.environment["XDG_CACHE_HOME"] = str(fetched.parents[1])
    git_alone = person.desk.parent / "bin"
    git_alone.mkdir()
    (git_alone / "git").symlink_to(shutil.which("git") or "")
    without_uv = [f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "uv").exists()]
    person.environment["PATH"] = os.pathsep.join([str(git_alone), *without_uv])
    done = person.types("new", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert (person.desk / "shop" / "uv.lock").read_text(encoding="utf-8") == "# locked\n"


def test_a_uv_that_writes_no_lock_is_reported(person: Person) -> None:
    person.environment["UV"] = shutil.which("true") or ""
    done = person.types("new", "shop")
    assert "Dependencies are not locked (uv wrote no uv.lock)" in done.stderr
