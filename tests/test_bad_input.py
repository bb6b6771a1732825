"""`rung new` that fails gives one message that says what to do, and leaves the disk as it was."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from people import RUNG, Person, git


def refused(done: subprocess.CompletedProcess[str], exit_code: int, *said: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("rung: ")
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr


def test_a_folder_that_is_not_empty_is_refused(person: Person) -> None:
    (person.desk / "shop").mkdir()
    (person.desk / "shop" / ".hidden").touch()
    with person.leaving_no_trace():
        refused(person.types("new", "shop"), 2, "shop exists and is not empty")


def test_a_file_at_the_place_is_refused(person: Person) -> None:
    (person.desk / "shop").touch()
    with person.leaving_no_trace():
        refused(person.types("new", "shop"), 2, "shop exists and is not a folder")


def test_a_dangling_link_at_the_place_is_refused(person: Person) -> None:
    (person.desk / "shop").symlink_to("nowhere")
    with person.leaving_no_trace():
        refused(person.types("new", "shop"), 2, "shop exists and is not a folder")


def test_a_place_whose_parent_is_a_file_is_refused(person: Person) -> None:
    (person.desk / "file").touch()
    with person.leaving_no_trace():
        refused(person.types("new", "file/inside/shop"), 2, "file is not a folder")


def mostly_slow(rows: list[tuple[Any, str]]) -> list[Any]:
    """The quick suite runs each fourth row."""
    return [
        row if number % 4 == 0 else pytest.param(*row, marks=pytest.mark.slow)
        for number, row in enumerate(rows)
    ]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_a_place_where_not_even_root_may_write_is_refused(person: Person) -> None:
    with person.leaving_no_trace():
        said = "/proc/shop/here cannot be created: No such file or directory (/proc)."
        refused(person.types("new", "/proc/shop/here"), 1, said)


@pytest.mark.parametrize(
    ("words", "said"),
    mostly_slow(
        [
            (["--stage", "0"], "stage: 0 is not in [1"),
            (["--stage", "5"], "stage: 5 is not in [1"),
            (["--stage", "two"], "stage: 'two' is not a number"),
            (["--stage", "-1"], "stage: '-1' is not a number"),
            (["--data", "stage=two"], "stage: 'two' is not a number"),
            (["--data", "project_slug=Web_Shop"], "project_slug: Write it like web-shop"),
            (["--data", "project_slug=shop\n"], "project_slug: Write it like web-shop"),
            (["--data", f"project_slug={'a' * 41}"], "project_slug: Write it like web-shop"),
            (["--data", "project_name=2024"], "Pass --data project_slug="),
            (["--data", "project_name= "], "project_name: Give the service a name"),
            (["--data", "project_name=\u3164\u200b"], "project_name: Give the service a name"),
            (["--data", "project_name=\u17b4\u180e\ufe00"], "project_name: Give the service"),
            (["--data", "project_name=Shop\nand inn"], "project_name: Keep it on one line"),
            (["--data", f"project_name={'a' * 61}"], "project_name: Keep it to 60 characters"),
            (["--data", "description=Sells\ttea"], "description: Keep it on one line"),
            (["--data", "team="], "team: Name the team"),
            (["--data", "team=\u2800\u17b5\u180b"], "team: Name the team"),
            (
                ["--data", "projectname=Shop"],
                "does not ask for projectname. It asks for project_name",
            ),
            (
                ["--stage", "2", "--data", "has_replicas=true"],
                "does not ask for has_replicas. It asks for project_name, project_slug, "
                "description, team, stage, replica_routing, pooler, module_databases.\n",
            ),
            (["--stage", "3", "--data", "replica_routing=maybe"], "'maybe' is neither yes nor no"),
            (
                ["--data", "replica_routing=true"],
                "replica_routing is not asked at stage 1 (foundation), "
                "but from stage 2 (database) on",
            ),
            (["--data", "project_name"], "--data project_name: write it as --data key=value"),
            (["--data", "=Shop"], "--data =Shop: write it as --data key=value"),
        ]
    ),
)
def test_an_impossible_answer_is_refused(person: Person, words: list[str], said: str) -> None:
    with person.leaving_no_trace():
        refused(person.types("new", "shop", *words), 2, said)


@pytest.mark.parametrize(
    ("written", "said"),
    mostly_slow(
        [
            ("a: [1", "answers.yml is not YAML (line 1)"),
            ("\x00", "answers.yml is not YAML"),
            ("- team\n", "answers.yml is not a mapping"),
            ("", "answers.yml is not a mapping"),
            ("team: [leaves]\n", "team: Could not convert ['leaves'] to string"),
            ("team:\n", "answers.yml: team must be a text"),
            ("stage: two\n", "stage: 'two' is not a number"),
            ("stage: true\n", "stage: 'true' is not a number"),
            ("stage: 1.5\n", "stage: '1.5' is not a number"),
            ("projectname: Shop\n", "does not ask for projectname"),
            ("stage: 3\nreplica_routing: maybe\n", "'maybe' is neither yes nor no"),
            ("1: Shop\n", "does not ask for 1"),
        ]
    ),
)
def test_an_impossible_answers_file_is_refused(person: Person, written: str, said: str) -> None:
    (person.desk / "answers.yml").write_text(written)
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--answers", "answers.yml"), 2, said)


def test_an_answers_file_that_is_not_there_is_refused(person: Person) -> None:
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--answers", "no.yml"), 2, "no.yml cannot be read")


def test_an_answers_file_that_is_a_folder_is_refused(person: Person) -> None:
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--answers", "."), 2, "cannot be read")


def test_a_machine_without_git_is_refused(person: Person) -> None:
    person.environment["PATH"] = str(person.desk)
    with person.leaving_no_trace():
        refused(person.types("new", "shop"), 1, "git is not installed")


def test_new_is_refused_when_git_knows_no_author(person: Person) -> None:
    (person.temporary.parent / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    person.environment["GIT_CONFIG_GLOBAL"] = str(person.temporary.parent / ".gitconfig")
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop"),
            1,
            "git does not know who you are",
            'git config --global user.name "Your Name"',
            "--no-git",
        )


def test_a_template_that_is_not_there_is_refused(person: Person) -> None:
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--template", "../rungs"), 2, "no such folder")


def test_a_template_that_is_not_in_git_is_refused(person: Person, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "copier.yml").touch()
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop", "--template", plain), 2, "is not a git work tree", "Commit"
        )


def test_a_template_that_is_a_folder_of_a_repository_is_refused(
    person: Person, small_template: Path
) -> None:
    inner = small_template / "template"
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--template", inner), 2, f"repository {small_template}")


def test_a_repository_that_is_no_template_is_refused(person: Person, tmp_path: Path) -> None:
    git("init", "--quiet", "other", cwd=tmp_path)
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop", "--template", tmp_path / "other"), 2, "has no copier.yml"
        )


def test_a_copier_template_other_than_rungs_is_refused(person: Person, own_template: Path) -> None:
    (own_template / "copier.yml").write_text("_subdirectory: template/dev\nname: x\n")
    git("commit", "--quiet", "--all", "--message=Another", cwd=own_template)
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--template", own_template), 2, "is not Rung's")


def test_a_template_without_a_commit_is_refused(person: Person, tmp_path: Path) -> None:
    git("init", "--quiet", "other", cwd=tmp_path)
    (tmp_path / "other" / ".git" / "info" / "exclude").write_text("copier.yml\n")
    (tmp_path / "other" / "copier.yml").touch()
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop", "--template", tmp_path / "other"), 2, "has no commit yet"
        )


def change_a_file(template: Path) -> None:
    (template / "copier.yml").write_text("# changed\n")


def add_a_file(template: Path) -> None:
    (template / "template" / "notes.md").touch()


def stage_a_file(template: Path) -> None:
    add_a_file(template)
    git("add", "--all", cwd=template)


@pytest.mark.parametrize("meddle", [change_a_file, add_a_file, stage_a_file])
def test_a_template_with_uncommitted_changes_is_refused(
    person: Person, own_template: Path, meddle: object
) -> None:
    assert callable(meddle)
    meddle(own_template)
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop", "--template", own_template),
            1,
            "not committed",
            "Commit or stash",
        )


def test_a_template_that_cannot_be_rendered_is_refused(person: Person, own_template: Path) -> None:
    (own_template / "template" / "broken.md.jinja").write_text("{{ no_such_question }}\n")
    git("add", "--all", cwd=own_template)
    git("commit", "--quiet", "--message=Break it", cwd=own_template)
    with person.leaving_no_trace():
        refused(
            person.types("new", "shop", "--template", own_template),
            1,
            "cannot be rendered",
            "no_such_question",
        )


def test_a_template_url_that_does_not_answer_is_refused(person: Person, tmp_path: Path) -> None:
    nowhere = f"file://{tmp_path}/nowhere.git"
    with person.leaving_no_trace():
        refused(person.types("new", "shop", "--template", nowhere), 1, "cannot be fetched")


def test_a_template_url_with_a_password_is_refused(person: Person) -> None:
    url = "https://ada:secret@git.example.com/rung.git"
    with person.leaving_no_trace():
        done = person.types("new", "shop", "--template", url)
        refused(done, 2, "holds a password")
        assert "secret" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [1, 4])
def test_a_file_that_cannot_be_written_completely_leaves_no_trace(
    person: Person, kibibytes: int
) -> None:
    limited = ["sh", "-c", f'ulimit -f {kibibytes * 2}; exec "$@"', "sh"]
    with person.leaving_no_trace():
        refused(person.runs(*limited, RUNG, "new", "shop"), 1)


@contextmanager
def small_disk(at: Path, kibibytes: int) -> Iterator[Path]:
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(at)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root and the kernel's leave")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.mark.parametrize(
    "kibibytes", [512, *(pytest.param(k, marks=pytest.mark.slow) for k in (64, 1024, 1536))]
)
def test_a_full_disk_leaves_no_trace(person: Person, template: Path, kibibytes: int) -> None:
    person.environment["RUNG_TEMPLATE"] = str(template)
    with small_disk(person.desk / "disk", kibibytes) as disk:
        (disk / "kept").write_text("kept")
        with person.leaving_no_trace():
            refused(person.types("new", "disk/shop"), 1)


def test_a_full_disk_leaves_an_existing_empty_folder_empty(person: Person) -> None:
    with small_disk(person.desk / "disk", 100) as disk:
        (disk / "shop").mkdir()
        with person.leaving_no_trace():
            refused(person.types("new", "disk/shop"), 1)


def test_a_git_that_fails_leaves_no_trace(person: Person) -> None:
    tools = person.temporary.parent / "bin"
    tools.mkdir()
    broken = tools / "git"
    broken.write_text(
        f'#!/bin/sh\n[ "$1" = commit ] && {{ echo "fatal: out of luck" >&2; exit 128; }}\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    broken.chmod(0o755)
    person.environment["PATH"] = f"{tools}{os.pathsep}{person.environment['PATH']}"
    with person.leaving_no_trace():
        refused(person.types("new", "shop"), 1, "git commit failed: fatal: out of luck")
