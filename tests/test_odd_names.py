"""Names of files and folders that hold spaces at their ends, tabs, line breaks or any letter."""

from pathlib import Path

import pytest
from growing import STATUS, Repo, release
from people import git

pytestmark = pytest.mark.slow

NAMES = (" notes .txt", "two\nlines.txt", "a\ttab.txt", "노트.txt")
ADVANCE = ("advance", "--yes")


@pytest.fixture
def odd(repo: Repo) -> Repo:
    """A repo with such files of the team's, also below Rung's folders."""
    for folder in ("app/orders", "app/infra"):
        for name in NAMES:
            repo.write(f"{folder}/{name}", "Ours\n")
    repo.commit()
    return repo


def test_a_repo_with_odd_file_names_is_advanced_and_taken_back(odd: Repo) -> None:
    said = odd.advances()
    assert odd.status() == STATUS
    assert odd.rung("status").returncode == 0
    odd.git("add", "--intent-to-add", ".")
    odd.undoes(said)
    assert odd.status() == []


def test_a_repo_with_odd_file_names_is_upgraded_and_taken_back(
    odd: Repo, own_growing_template: Path
) -> None:
    (own_growing_template / "template" / "app/infra/ new .py").write_text("NEW = True\n")
    release(own_growing_template, "v9.0.0")
    done = odd.rung("upgrade", "--commit")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert odd.text("app/infra/ new .py") == "NEW = True\n"
    assert [odd.text(f"app/orders/{name}") for name in NAMES] == ["Ours\n"] * len(NAMES)
    assert odd.rung("undo").returncode == 0
    assert not (odd.folder / "app/infra/ new .py").exists()
    assert odd.status() == []


@pytest.mark.parametrize("name", NAMES)
def test_an_edited_file_with_an_odd_name_is_named_in_one_line(odd: Repo, name: str) -> None:
    odd.write(f"app/orders/{name}", "Edited\n")
    reason = odd.refuses(*ADVANCE)
    shown = name.replace("\n", "\\n").replace("\t", "\\t")
    assert f"not committed (app/orders/{shown})" in reason
    assert reason.count("\n") == 1


@pytest.mark.parametrize("name", [*NAMES, " "])
def test_a_project_in_a_folder_with_an_odd_name(repo: Repo, name: str) -> None:
    shop = repo.copied_to(repo.person.desk / name)
    assert shop.rung("status").returncode == 0
    shop.advances()
    assert shop.is_advanced()
    done = shop.rung("undo")
    assert (done.returncode, done.stderr) == (0, "")
    assert not shop.is_advanced()


@pytest.mark.parametrize("name", [*NAMES, " "])
def test_a_project_below_the_top_in_a_folder_with_an_odd_name(repo: Repo, name: str) -> None:
    shop = Repo(repo.person, repo.person.desk / "whole" / name)
    shop.write("../README.md", "All of it\n")
    git("init", "--quiet", cwd=shop.folder.parent)
    repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shop.commit()
    shop.advances("--commit")
    assert shop.answers()["stage"] == 2
    done = shop.rung("undo")
    assert (done.returncode, done.stderr) == (0, "")
    assert shop.answers()["stage"] == 1
    assert shop.status() == []


@pytest.mark.parametrize("name", [" template ", "두 템플릿"])
def test_a_template_in_a_folder_with_an_odd_name(
    repo: Repo, growing_template: Path, name: str
) -> None:
    template = repo.person.desk / name
    git("clone", "--quiet", str(growing_template), str(template), cwd=repo.person.desk)
    assert repo.person.types("new", "inn", "--template", template).returncode == 0
    (template / "노트.txt").write_text("Not committed\n")
    reason = repo.refuses("new", repo.person.desk / "two", "--template", template)
    assert "not committed (노트.txt)" in reason
