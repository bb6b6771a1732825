"""Plain Copier makes and updates the same project without the CLI, and needs no --trust."""

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from people import COPIER, Person, content, git
from variants import OPTIONS, VARIANTS, asked, variant_name

pytestmark = pytest.mark.slow


def tracked(project: Path) -> dict[str, tuple[str, bytes]]:
    """Mode and content of each file in the last commit."""
    listed = git("ls-tree", "-r", "-z", "HEAD", cwd=project).split("\0")
    entries = [entry.split("\t") for entry in listed if entry]
    return {name: (meta.split()[0], content(project / name)) for meta, name in entries}


def copy_with_copier(person: Person, template: Path, dest: str, *data: str) -> Path:
    answers = [f"--data={answer}" for answer in data]
    done = person.runs(COPIER, "copy", "--defaults", *answers, template, dest)
    assert done.returncode == 0, done.stderr
    project = person.desk / dest
    git("init", "--quiet", "--initial-branch=main", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message=Start", cwd=project)
    return project


def release(template: Path, version: str) -> None:
    (template / "template" / "later.txt").write_text("later\n")
    git("add", "--all", cwd=template)
    git("commit", "--quiet", "--message=Add a file", cwd=template)
    git("tag", version, cwd=template)


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_copier_copy_gives_the_same_files_as_rung_new(
    person: Person, template: Path, variant: dict[str, Any]
) -> None:
    data = [f"{key}={value}" for key, value in asked(variant).items()]
    person.environment["RUNG_TEMPLATE"] = str(template)
    done = person.types("new", "shop", *(word for answer in data for word in ("--data", answer)))
    assert done.returncode == 0, done.stderr
    ours = tracked(person.desk / "shop")
    del ours["uv.lock"]
    assert tracked(copy_with_copier(person, template, "plain", *data)) == ours


def test_copier_update_brings_a_copied_project_to_the_next_version(
    person: Person, own_template: Path
) -> None:
    project = copy_with_copier(person, own_template, "shop")
    release(own_template, "v0.2.0")
    done = person.runs(COPIER, "update", "--defaults", at=project)
    assert done.returncode == 0, done.stderr
    assert (project / "later.txt").read_text() == "later\n"
    assert "_commit: v0.2.0" in (project / ".copier-answers.yml").read_text()


@pytest.mark.parametrize(("at", "src"), [(".", "."), ("..", "template"), ("template", "..")])
def test_a_template_that_was_named_by_a_relative_path_is_found_again(
    person: Person, own_template: Path, at: str, src: str
) -> None:
    place = own_template.rename(own_template.with_name("template"))
    project = person.desk / "shop"
    done = person.runs(COPIER, "copy", "--defaults", src, project, at=place / at)
    assert done.returncode == 0, done.stderr
    assert f"_src_path: {place}\n" in (project / ".copier-answers.yml").read_text()
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message=Start", cwd=project)
    release(place, "v0.2.0")
    done = person.runs(COPIER, "update", "--defaults", at=project)
    assert done.returncode == 0, done.stderr
    assert (project / "later.txt").exists()
    assert person.types("status", at=project).returncode == 0


def test_copier_update_brings_a_rung_new_project_to_the_next_version(
    person: Person, own_template: Path
) -> None:
    person.types("new", "shop", "--template", own_template)
    project = person.desk / "shop"
    (project / "README.md").write_text("Our own words.\n")
    git("commit", "--quiet", "--all", "--message=Rewrite", cwd=project)
    release(own_template, "v0.2.0")
    done = person.runs(COPIER, "update", "--defaults", at=project)
    assert done.returncode == 0, done.stderr
    assert (project / "later.txt").read_text() == "later\n"
    assert (project / "README.md").read_text() == "Our own words.\n"
    assert git("status", "--porcelain", cwd=project) == " M .copier-answers.yml\n?? later.txt\n"


def test_copier_update_reaches_a_project_from_before_the_first_option(
    person: Person, own_template: Path
) -> None:
    now = own_template / "copier.yml"
    newest = now.read_text()
    optionless = newest.partition(f"{OPTIONS[0]}:")[0]
    now.write_text(
        "".join(line for line in optionless.splitlines(True) if "default(false)" not in line)
    )
    release(own_template, "v0.2.0")
    project = copy_with_copier(person, own_template, "shop")
    now.write_text(newest)
    release(own_template, "v0.3.0")
    done = person.runs(COPIER, "update", "--defaults", at=project)
    assert done.returncode == 0, done.stderr
    assert "_commit: v0.3.0" in (project / ".copier-answers.yml").read_text()


def test_the_commands_of_the_readme_work(person: Person, own_template: Path) -> None:
    section = (REPO / "README.md").read_text().partition("## Without the CLI\n")[2]
    typed = [
        line.partition("  #")[0].strip() for line in section.splitlines() if line[:4] == "    "
    ]
    copy, start, newer, next_stage = typed[:4]
    person.environment["PATH"] = f"{COPIER.parent}{os.pathsep}{person.environment['PATH']}"
    project = own_template.parent / "shop"

    def types(command: str, at: Path) -> None:
        done = person.runs("sh", "-c", command, at=at)
        assert done.returncode == 0, done.stderr

    types(f"{copy} --defaults && {start}", own_template)
    release(own_template, "v0.2.0")
    types(f"{newer} --defaults && git add --all && git commit -m Newer", project)
    assert (project / "later.txt").exists()
    types(f"{next_stage} --defaults", project)
    assert "stage: 2\n" in (project / ".copier-answers.yml").read_text()


def test_copier_update_to_the_same_version_changes_nothing(
    person: Person, own_template: Path
) -> None:
    person.types("new", "shop", "--template", own_template)
    project = person.desk / "shop"
    done = person.runs(COPIER, "update", "--defaults", at=project)
    assert done.returncode == 0, done.stderr
    assert git("status", "--porcelain", cwd=project) == ""
