"""Kills, interrupts, full disks and odd repositories: a step is applied completely or not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from growing import Repo
from people import Person, git, outcome, slow_down, wait_until_there
from test_advance import files_of

pytestmark = pytest.mark.slow

# The programs that rung and Copier start, in this order.
GIT_STEPS = ["status", "init", "clone", "add", "write-tree", "diff-tree", "checkout-index"]

# Runs rung, and does something at the n-th file that is moved into place or removed.
ACCIDENT = """\
import errno, os, signal, sys
from rung.__main__ import main

number, accident = int(sys.argv.pop(1)), sys.argv.pop(1)
carrying, count = False, 0

def strike():
    if accident == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.EIO, os.strerror(errno.EIO))

def watched(real):
    def call(path, *rest, **named):
        global carrying, count
        if carrying:
            count += 1
            if count == number:
                strike()
        done = real(path, *rest, **named)
        carrying = carrying or bool(rest) and str(rest[0]).endswith("journal.json")
        return done
    return call

for name in ("rename", "replace", "unlink"):
    setattr(os, name, watched(getattr(os, name)))
main()
"""

# Eight files change; the ninth step removes the journal.
STEPS = range(1, 10)


def meets(
    accident: str, number: int, repo: Repo, command: tuple[str, ...] = ("advance", "--yes")
) -> subprocess.CompletedProcess[str]:
    return repo.person.runs(
        sys.executable, "-c", ACCIDENT, str(number), accident, *command, at=repo.folder
    )


def leftovers(repo: Repo) -> list[Path]:
    return [
        path for path in (repo.folder / ".git" / "rung", repo.folder / ".rung") if path.exists()
    ]


@pytest.mark.parametrize("number", STEPS)
def test_a_step_killed_while_applied_is_finished_by_the_next_command(
    repo: Repo, number: int
) -> None:
    assert meets("kill", number, repo).returncode == -signal.SIGKILL
    done = repo.rung("status")
    assert done.returncode == 0, done.stderr
    assert "The step to stage 2 (database) was interrupted here" in done.stderr
    assert repo.is_advanced() == (number > 1)
    assert leftovers(repo) == []
    assert repo.rung("status").stderr == ""


def test_a_killed_step_that_the_person_undid_stays_undone(repo: Repo) -> None:
    meets("kill", 5, repo)
    repo.git("restore", ".")
    repo.git("clean", "-fdq")
    assert "before it changed a file" in repo.rung("status").stderr
    assert not repo.is_advanced()


def test_a_killed_step_is_not_finished_over_later_edits(repo: Repo) -> None:
    meets("kill", 5, repo)
    repo.write("docs/stage.md", "Ours now.\n")
    said = repo.rung("status").stderr
    assert "docs/stage.md changed since, so the step is not finished" in said
    assert repo.text("docs/stage.md") == "Ours now.\n"
    assert leftovers(repo) == []


def test_a_killed_step_is_reported_before_the_next_advance(repo: Repo) -> None:
    meets("kill", 5, repo)
    done = repo.rung("advance", "--yes")
    assert "It is now finished." in done.stderr
    assert done.returncode == 1
    assert repo.is_advanced()


@pytest.mark.parametrize("number", STEPS[:-1])
def test_a_disk_failure_while_applied_takes_the_step_back(repo: Repo, number: int) -> None:
    with repo.person.leaving_no_trace():
        done = meets("fail", number, repo)
    assert done.returncode == 1
    assert "The step cannot be applied: Input/output error" in done.stderr
    assert "Nothing was changed." in done.stderr


@pytest.mark.parametrize("step", GIT_STEPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_step_stopped_before_it_is_applied_changes_no_file(
    repo: Repo, tmp_path: Path, step: str, number: signal.Signals
) -> None:
    reached = tmp_path / "reached"
    slow_down(repo.person, "git", step, reached)
    before = repo.person.everything()
    process = repo.person.starts("advance", "--yes", repo.folder)
    wait_until_there(reached)
    os.killpg(process.pid, number)
    code, _, errors = outcome(process)
    if number == signal.SIGINT:
        assert (code, errors) == (1, "rung: Stopped. Nothing was changed.\n")
        assert repo.person.everything() == before
    else:
        assert not repo.is_advanced()
        repo.advances()
        assert repo.is_advanced()
        assert leftovers(repo) == []


@pytest.mark.parametrize("tenths", range(1, 25, 2))
def test_ctrl_c_at_any_moment_leaves_all_or_nothing(repo: Repo, tenths: int) -> None:
    process = repo.person.starts("advance", "--yes", repo.folder)
    try:
        process.wait(tenths / 10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    code, _, _ = outcome(process)
    assert repo.is_advanced() == (code == 0)
    assert leftovers(repo) == []


def test_ctrl_c_after_the_last_output_changes_nothing(repo: Repo) -> None:
    process = repo.person.starts("advance", "--yes", repo.folder)
    assert process.stdout
    # The last output comes when Python begins to exit.
    assert any("Undo it with" in line for line in process.stdout)
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.0005)
    code, _, _ = outcome(process)
    assert code == 0
    assert repo.is_advanced()


def test_ctrl_c_at_the_question_changes_nothing(repo: Repo) -> None:
    with (
        repo.person.leaving_no_trace(),
        repo.person.at_a_terminal("advance", repo.folder) as terminal,
    ):
        terminal.wait_for("[y/N]")
        terminal.wait_until_it_listens()
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_for_the_end() == 1
        assert "Stopped. Nothing was changed." in terminal.shown


AT_THE_QUESTION = {
    "an edit": ("echo mine >> app/infra/wiring.py", "app/infra/wiring.py"),
    "an edit of a file that goes": ("echo mine >> app/infra/simple.py", "app/infra/simple.py"),
    "a file that the step adds": ("echo mine > app/infra/slow_queries.py", "in its place"),
    "a commit": ("echo mine >> app/infra/wiring.py; git commit -qam mine", "another commit"),
    "a merge": ("touch .git/MERGE_HEAD", "in the middle of a merge"),
}


@pytest.mark.parametrize(("change", "said"), AT_THE_QUESTION.values(), ids=AT_THE_QUESTION)
def test_what_a_person_changes_at_the_question_is_kept(repo: Repo, change: str, said: str) -> None:
    with repo.person.at_a_terminal("advance", repo.folder) as terminal:
        terminal.wait_for("[y/N]")
        repo.person.runs("sh", "-c", change, at=repo.folder)
        changed = files_of(repo.folder)
        terminal.press("y\r")
        assert terminal.wait_for_the_end() == 1
        assert said in " ".join(terminal.text.split())
    assert leftovers(repo) == []
    assert files_of(repo.folder) == changed


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("left", [40, 400, 1200])
def test_a_full_disk_leaves_all_or_nothing(repo: Repo, tmp_path: Path, left: int) -> None:
    """`left` is the free space in KiB. The step fails early or late, or has enough space."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        shop = repo.copied_to(disk / "shop")
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "ballast").write_bytes(b"x" * (free - left * 1024))
        done = shop.rung("advance", "--yes")
        assert "Traceback" not in done.stderr
        assert shop.is_advanced() == (done.returncode == 0)
        assert leftovers(shop) == []
        if left == 40:
            assert done.returncode == 1
            assert "No space left on device" in done.stderr


def test_hooks_that_fail_do_not_run(repo: Repo) -> None:
    hooks = repo.folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "commit-msg", "post-checkout", "post-commit", "post-index-change"):
        (hooks / name).write_text("#!/bin/sh\necho a hook ran >&2\nexit 1\n")
        (hooks / name).chmod(0o755)
    done = repo.rung("advance", "--yes", "--commit")
    assert (done.returncode, done.stderr) == (0, "")
    assert repo.status() == []
    assert repo.answers()["stage"] == 2


def test_line_endings_follow_the_persons_git_configuration(repo: Repo) -> None:
    repo.git("rm", "--quiet", ".gitattributes")
    repo.commit()
    repo.git("config", "core.autocrlf", "true")
    windows = Repo(repo.person, repo.person.desk / "windows")
    git("clone", "--quiet", "--config=core.autocrlf=true", "shop", "windows", cwd=repo.person.desk)
    windows.advances()
    assert windows.is_advanced()
    for name in ("app/infra/slow_queries.py", "app/infra/wiring.py"):
        content = (windows.folder / name).read_bytes()
        assert content.count(b"\r\n") == content.count(b"\n") > 0


def test_core_autocrlf_of_the_person_changes_no_other_file(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "true")
    repo.advances()
    assert repo.is_advanced()
    assert b"\r" not in (repo.folder / "app" / "infra" / "slow_queries.py").read_bytes()


def test_a_project_in_a_folder_of_a_larger_repository_advances(repo: Repo) -> None:
    whole = repo.person.desk / "Alles & Mehr"
    whole.mkdir()
    git("init", "--quiet", cwd=whole)
    shop = Repo(repo.person, whole / "services" / "mein 店")
    shop.folder.parent.mkdir()
    shop.write("../other/app.py", "OTHER = True\n")
    repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shop.commit()
    (whole / "services" / "other" / "app.py").write_text("OTHER = 'edited, not committed'\n")
    shop.advances("--commit")
    assert git("status", "--porcelain", cwd=whole) == " M services/other/app.py\n"
    assert shop.answers()["stage"] == 2
    assert (shop.folder / "app/infra/slow_queries.py").exists()
    assert not (whole / "app").exists()


def test_a_project_in_a_folder_of_a_larger_repository_is_taken_back(repo: Repo) -> None:
    whole = repo.person.desk / "whole"
    shop = Repo(repo.person, whole / "shop")
    shop.write("../README.md", "All of it\n")
    git("init", "--quiet", cwd=whole)
    repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shop.commit()
    shop.undoes(shop.advances())
    assert shop.status() == []


def test_conflicts_in_a_folder_of_a_larger_repository_are_marked_there(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    shop = Repo(repo.person, repo.person.desk / "whole" / "shop")
    shop.write("../app/infra/wiring.py", "OF_ALL = True\n")
    git("init", "--quiet", cwd=shop.folder.parent)
    repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shop.commit()
    assert shop.rung("advance", "--yes", "--keep-conflicts").returncode == 1
    assert set(shop.git("ls-files", "--unmerged", "--full-name", ":/").split()[3::4]) == {
        "shop/app/infra/wiring.py"
    }
    assert shop.rung("undo").returncode == 0
    assert shop.status() == []


def test_the_status_of_a_folder_of_a_larger_repository_lists_its_edited_files(repo: Repo) -> None:
    shop = Repo(repo.person, repo.person.desk / "whole" / "shop")
    git("init", "--quiet", str(shop.folder.parent), cwd=repo.person.desk)
    repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shop.commit()
    shop.write("app/infra/simple.py", "SIMPLE = False\n")
    found = json.loads(shop.rung("status", "--json").stdout)
    assert (found["edited"], found["problems"]) == (["app/infra/simple.py"], [])


@pytest.mark.parametrize("name", ["Läden & Cafés 店", 'it\'s: a "test"'])
def test_a_path_may_hold_spaces_quotes_and_letters_of_any_language(repo: Repo, name: str) -> None:
    shop = repo.copied_to(repo.person.desk / name)
    done = repo.person.types("advance", "--yes", name)
    assert done.returncode == 0, done.stderr
    assert shop.is_advanced()
    repo.undoes(done.stdout, at=repo.person.desk)
    assert not shop.is_advanced()


def test_a_worktree_advances_alone(repo: Repo) -> None:
    repo.git("worktree", "add", "--quiet", "../tree")
    tree = Repo(repo.person, repo.person.desk / "tree")
    tree.advances()
    assert tree.is_advanced()
    assert not repo.is_advanced()


def test_a_shallow_clone_advances(repo: Repo) -> None:
    repo.edits("README.md", "#", "# Our own:")
    git("clone", "--quiet", "--depth=1", f"file://{repo.folder}", "shallow", cwd=repo.person.desk)
    shallow = Repo(repo.person, repo.person.desk / "shallow")
    shallow.advances()
    assert shallow.is_advanced()


def test_a_detached_head_advances(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--detach")
    repo.advances("--commit")
    assert repo.status() == []


def test_called_from_another_repositorys_hook_it_changes_only_the_project(repo: Repo) -> None:
    other = repo.person.desk / "other"
    git("init", "--quiet", str(other), cwd=repo.person.desk)
    repo.person.environment |= {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
    }
    repo.advances()
    assert repo.is_advanced()
    assert git("status", "--porcelain", cwd=other) == ""


def test_a_bare_repository_is_refused(person: Person, repo: Repo) -> None:
    git("clone", "--quiet", "--bare", "shop", "bare.git", cwd=person.desk)
    done = person.types("advance", "--yes", "bare.git")
    assert done.returncode == 1
    assert "is not a repo of Rung's" in done.stderr


def test_a_project_whose_git_directory_is_on_another_disk_advances(
    repo: Repo, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        apart = Repo(repo.person, repo.person.desk / "apart")
        repo.git("clone", "--quiet", f"--separate-git-dir={disk}/shop.git", ".", str(apart.folder))
        assert disk.stat().st_dev != apart.folder.stat().st_dev
        apart.advances()
        assert apart.is_advanced()
        assert leftovers(apart) == []
