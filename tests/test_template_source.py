"""The place where `rung new` finds its template, and the record of it in a project."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from growing import release
from people import COPIER, Person, git, spell_otherwise

pytestmark = pytest.mark.slow


def recorded(project: Path) -> tuple[str, str]:
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return answers["_src_path"], answers["_commit"]


def head(template: Path) -> str:
    return git("rev-parse", "HEAD", cwd=template).strip()


def commit_a_file(template: Path, name: str) -> None:
    (template / "template" / name).write_text("later\n")
    git("add", "--all", cwd=template)
    git("commit", "--quiet", f"--message=Add {name}", cwd=template)


def installed_from(person: Person, origin: dict[str, Any] | None) -> None:
    """A rung whose installer wrote this direct_url.json, found before the one under test."""
    packages = person.temporary.parent / "packages"
    metadata = packages / "rung-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rung\nVersion: 0.1.0\n")
    if origin is not None:
        (metadata / "direct_url.json").write_text(json.dumps(origin))
    del person.environment["RUNG_TEMPLATE"]
    person.environment["PYTHONPATH"] = str(packages)


@pytest.mark.parametrize("editable", [True, False])
def test_installed_from_a_checkout_it_uses_that_checkout(
    person: Person, own_template: Path, editable: bool
) -> None:
    commit_a_file(own_template, "later.txt")
    installed_from(person, {"url": own_template.as_uri(), "dir_info": {"editable": editable}})
    done = person.types("new", "shop")
    assert done.returncode == 0, done.stderr
    assert (person.desk / "shop" / "later.txt").exists()
    source, commit = recorded(person.desk / "shop")
    assert source == str(own_template)
    assert commit.startswith("v0.1.0-1-g")


def test_installed_from_a_checkout_whose_path_has_spaces(
    person: Person, small_template: Path, tmp_path: Path
) -> None:
    checkout = tmp_path / "Große Vorlage"
    git("clone", "--quiet", str(small_template), str(checkout), cwd=tmp_path)
    installed_from(person, {"url": checkout.as_uri(), "dir_info": {}})
    assert person.types("new", "shop").returncode == 0
    assert recorded(person.desk / "shop") == (str(checkout), "v0.1.0")


def test_installed_from_git_it_uses_that_commit(person: Person, own_template: Path) -> None:
    installed = head(own_template)
    commit_a_file(own_template, "later.txt")
    installed_from(
        person, {"url": own_template.as_uri(), "vcs_info": {"vcs": "git", "commit_id": installed}}
    )
    done = person.types("new", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (person.desk / "shop" / "later.txt").exists()
    assert recorded(person.desk / "shop") == (f"git+{own_template.as_uri()}", "v0.1.0")


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (None, "installed as a package"),
        ({"url": "file:///rung.whl", "archive_info": {}}, "installed as a package"),
        (
            {"url": "https://hg.example.com/rung", "vcs_info": {"vcs": "hg"}},
            "installed as a package",
        ),
        (
            {
                "url": "https://git.example.com/tools.git",
                "vcs_info": {"vcs": "git", "commit_id": "0" * 40},
                "subdirectory": "rung",
            },
            "from a subdirectory",
        ),
    ],
)
def test_installed_from_a_place_without_a_template_it_asks_for_one(
    person: Person, origin: dict[str, Any] | None, said: str
) -> None:
    installed_from(person, origin)
    with person.leaving_no_trace():
        done = person.types("new", "shop")
        assert done.returncode == 1
        assert said in done.stderr
        assert "RUNG_TEMPLATE" in done.stderr


def test_the_option_beats_the_variable(person: Person, own_template: Path) -> None:
    person.environment["RUNG_TEMPLATE"] = "/nowhere"
    done = person.types("new", "shop", "--template", own_template)
    assert done.returncode == 0, done.stderr
    assert recorded(person.desk / "shop")[0] == str(own_template)


def test_a_relative_path_is_recorded_in_full(person: Person, own_template: Path) -> None:
    person.environment["RUNG_TEMPLATE"] = "../own-template"
    person.types("new", "shop")
    assert recorded(person.desk / "shop")[0] == str(own_template)


def test_a_link_to_a_checkout_is_followed(
    person: Person, own_template: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(own_template)
    person.types("new", "shop", "--template", tmp_path / "link")
    assert recorded(person.desk / "shop")[0] == str(own_template)


def test_a_checkout_that_git_spells_otherwise_is_the_same_checkout(
    person: Person, own_template: Path
) -> None:
    spelled = spell_otherwise(person, own_template)
    done = person.types("new", "shop", "--template", own_template)
    assert done.returncode == 0, done.stderr
    assert recorded(person.desk / "shop") == (str(spelled), "v0.1.0")


def test_a_git_url_gives_its_newest_version(person: Person, own_template: Path) -> None:
    commit_a_file(own_template, "unreleased.txt")
    done = person.types("new", "shop", "--template", own_template.as_uri())
    assert (done.returncode, done.stderr) == (0, "")
    assert not (person.desk / "shop" / "unreleased.txt").exists()
    assert recorded(person.desk / "shop") == (f"git+{own_template.as_uri()}", "v0.1.0")


def test_a_git_url_without_a_version_gives_its_last_commit_quietly(
    person: Person, own_template: Path
) -> None:
    git("tag", "--delete", "v0.1.0", cwd=own_template)
    done = person.types("new", "shop", "--template", own_template.as_uri())
    assert (done.returncode, done.stderr) == (0, "")
    assert head(own_template).startswith(recorded(person.desk / "shop")[1])


def released_worktree(template: Path) -> Path:
    worktree = template.parent / "worktree"
    git("worktree", "add", "--quiet", "-b", "beside", str(worktree), cwd=template)
    return worktree


def shallow_clone(template: Path) -> Path:
    shallow = template.parent / "shallow"
    git("clone", "--quiet", "--depth=1", template.as_uri(), str(shallow), cwd=template)
    git("fetch", "--quiet", "--unshallow", cwd=shallow)
    return shallow


def detached(template: Path) -> Path:
    git("checkout", "--quiet", "--detach", cwd=template)
    return template


def itself(template: Path) -> Path:
    return template


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("checkout", [itself, released_worktree, shallow_clone, detached])
def test_a_later_update_finds_the_recorded_template(
    person: Person, own_template: Path, checkout: Any, tagged: bool
) -> None:
    if not tagged:
        git("tag", "--delete", "v0.1.0", cwd=own_template)
    source = checkout(own_template)
    done = person.types("new", "shop", "--template", source)
    assert (done.returncode, done.stderr) == (0, "")
    commit_a_file(source, "later.txt")
    if tagged:
        git("tag", "v0.2.0", cwd=source)
    updated = person.runs(COPIER, "update", "--defaults", at=person.desk / "shop")
    assert updated.returncode == 0, updated.stderr
    assert (person.desk / "shop" / "later.txt").exists()


def test_a_shallow_clone_makes_a_project_without_a_warning(
    person: Person, own_template: Path
) -> None:
    shallow = own_template.parent / "shallow"
    git("clone", "--quiet", "--depth=1", own_template.as_uri(), str(shallow), cwd=own_template)
    done = person.types("new", "shop", "--template", shallow)
    assert (done.returncode, done.stderr) == (0, "")


def test_between_two_versions_copier_updates_to_head_only(
    person: Person, own_template: Path
) -> None:
    commit_a_file(own_template, "unreleased.txt")
    person.types("new", "shop", "--template", own_template)
    commit_a_file(own_template, "later.txt")
    shop = person.desk / "shop"
    assert "downgrading" in person.runs(COPIER, "update", "--defaults", at=shop).stderr
    done = person.runs(COPIER, "update", "--defaults", "--vcs-ref=HEAD", at=shop)
    assert done.returncode == 0, done.stderr
    assert (shop / "later.txt").exists()


def test_a_template_that_runs_programs_is_refused_until_copiers_settings_trust_it(
    person: Person, own_template: Path
) -> None:
    with (own_template / "copier.yml").open("a", encoding="utf-8") as settings:
        settings.write("\n_tasks:\n  - touch made-by-a-task\n")
    release(own_template, "v0.2.0")
    words = ("new", "shop", "--template", own_template)
    with person.leaving_no_trace():
        done = person.types(*words)
    assert done.returncode == 1
    assert "list it under trust in Copier's settings: https://" in done.stderr
    assert "--trust" not in done.stderr
    trusting = own_template.parent / "trusting.yml"
    trusting.write_text(f"trust: ['{own_template}']\n", encoding="utf-8")
    person.environment["COPIER_SETTINGS_PATH"] = str(trusting)
    done = person.types(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert (person.desk / "shop" / "made-by-a-task").exists()
