"""States of a person's git: `rung advance --commit` and `rung undo` work, or say why not."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from growing import Repo

pytestmark = pytest.mark.slow

TO_COMMIT = ("advance", "--yes", "--commit")

CONFLICT = (
    "git checkout -qb x; echo a > README.md; git commit -qam a; git checkout -q -;"
    "echo b > README.md; git commit -qam b;"
)
SUBMODULE = (
    "git init -q ../sub; git -C ../sub commit -q --allow-empty -m x;"
    "git -c protocol.file.allow=always submodule -q add $PWD/../sub {at}; git commit -qam sub;"
)
FAILING_HOOKS = (
    "mkdir ../hooks; for hook in pre-commit commit-msg reference-transaction post-checkout;"
    "do printf '#!/bin/sh\\nexit 1\\n' > ../hooks/$hook; chmod +x ../hooks/$hook; done;"
    "git config core.hooksPath $PWD/../hooks"
)
LFS = "git config filter.lfs.{kind} {program}; git config filter.lfs.required true;"
LFS_OF_ALL = "echo '*.py filter=lfs' > .git/info/attributes"

# Commands that make the state, and words of the refusal.
REFUSED = {
    "locked HEAD": ("touch .git/HEAD.lock", ".git/HEAD.lock exists"),
    "locked branch": (
        "touch .git/refs/heads/$(git branch --show-current).lock",
        ".lock exists, because another git command is running or was killed",
    ),
    "git am": (
        "(echo 'From: a <a@b>'; echo 'Subject: x'; echo; echo ---; git diff HEAD~1 2>&1;"
        "printf 'diff --git a/x b/x\\n--- a/x\\n+++ b/x\\n@@ -1 +1 @@\\n-a\\n+b\\n') | git am",
        "in the middle of a rebase or an am",
    ),
    "rebase by patches": (f"{CONFLICT} git rebase --apply x; git reset -q --hard", "a rebase"),
    "rebase by merges": (f"{CONFLICT} git rebase x; git reset -q --hard", "a rebase"),
    "filter that fails": (
        LFS.format(kind="clean", program="false") + LFS_OF_ALL,
        "external filter 'false' failed",
    ),
    "filter that is not installed": (
        LFS.format(kind="process", program="'git-lfs filter-process'") + LFS_OF_ALL,
        "git-lfs, which is not installed",
    ),
    "filter that changes": (
        LFS.format(kind="clean", program="'tr a-z A-Z'") + LFS_OF_ALL,
        "has changes that are not committed",
    ),
    "submodule with a new commit": (
        SUBMODULE.format(at="sub") + "git -C sub commit -q --allow-empty -m y",
        "has changes that are not committed (sub)",
    ),
    "submodule in the way": (
        SUBMODULE.format(at="app/infra/slow_queries.py"),
        "In conflict: app/infra/slow_queries.py",
    ),
    "repository in the way": (
        "git init -q app/infra/slow_queries.py",
        "an uncommitted file or folder is in its place",
    ),
    "alternates that are gone": (
        "mv .git/objects ../objects; mkdir -p .git/objects/info;"
        "echo /nowhere > .git/objects/info/alternates",
        "Make git status work",
    ),
    "broken index": ("echo x > .git/index", "index file smaller than expected"),
    "broken HEAD": ("echo x > .git/HEAD", "Make git status work"),
    "broken settings": ("echo '[[[' >> .git/config", "bad config line"),
    "settings that include themselves": ("git config include.path config", "include"),
    "broken settings of this folder": (
        "echo '[[[' > ../broken; git config includeIf.gitdir:/.path $PWD/../broken",
        "bad config line 1",
    ),
    "a value that git does not know": ("git config core.autocrlf maybe", "'core.autocrlf'"),
    "a format of a later git": (
        "git config core.repositoryformatversion 1; git config extensions.later true",
        "unknown repository extension found: later. A newer git made this repository",
    ),
    "another owner": ("chown -R 65534 . .git", "git config --global --add safe.directory"),
    "bare": ("git config core.bare true", "must be run in a work tree"),
    "no name": (
        "git config user.useConfigOnly true; git config user.name ''",
        "git does not know who you are",
    ),
    "files that are excluded": ("echo app/ > .git/info/exclude", ".git/info/exclude matches"),
    "an excluded file in the way": (
        "echo slow_queries.py > .git/info/exclude; echo mine > app/infra/slow_queries.py",
        "an uncommitted file or folder is in its place",
    ),
    "answers that are a link": (
        "git mv .copier-answers.yml real.yml; ln -s real.yml .copier-answers.yml;"
        "git add .; git commit -qm x",
        "In conflict: .copier-answers.yml",
    ),
    "a link in the way": (
        "ln -s /etc/passwd app/infra/slow_queries.py",
        "an uncommitted file or folder is in its place",
    ),
    "a fifo in the way": (
        "mkfifo app/infra/slow_queries.py",
        "an uncommitted file or folder is in its place",
    ),
}

# One state a line, because a setting of one state cannot matter in another.
WORKS = {
    "locks of what is not written": "touch .git/config.lock .git/packed-refs.lock",
    "partial clone without its remote": (
        "git config uploadpack.allowFilter true;"
        "git clone -q --filter=blob:none file://$PWD ../part; rm -rf .git; mv ../part/.git .git;"
        "git config remote.origin.url file:///nowhere"
    ),
    "submodule that is gone": (
        SUBMODULE.format(at="sub") + "git submodule -q deinit -f sub; rm -rf ../sub .git/modules"
    ),
    "worktree that is gone": "git worktree add -q ../w; rm -r ../w",
    "branch and tag named HEAD": (
        "git update-ref refs/heads/HEAD HEAD; git update-ref refs/tags/HEAD HEAD"
    ),
    "settings of commits": (
        "git config commit.gpgSign true; git config gpg.program /nowhere;"
        "git config commit.template /nowhere; git config commit.cleanup scissors;"
        "git config core.editor false; git config core.commentChar B;"
        f"git config log.showSignature true; git config log.date words; {FAILING_HOOKS}"
    ),
    "settings of files": (
        "git config core.fileMode false; git config core.symlinks false;"
        "git config core.ignoreCase true; git config core.safecrlf true;"
        "git config core.autocrlf input; git config core.bigFileThreshold 1;"
        "git config core.attributesFile /nowhere; git config core.excludesFile /nowhere;"
        "git config core.ignoreStat true"
    ),
    "settings of merges": (
        "git config merge.conflictStyle zdiff3; git config merge.renames false;"
        "git config apply.whitespace error-all; git config core.whitespace tab-in-indent;"
        "git config diff.renames copies; git config gc.auto 1; git config include.path /nowhere;"
        "git config protocol.allow never; git config protocol.file.allow never"
    ),
}

# After a committed step. An undo would put the files back, and git would refuse the commit.
NOT_UNDONE = {
    "a merge": ("git merge x", "in the middle of a merge (git merge --abort)"),
    "a cherry-pick": ("git cherry-pick x", "in the middle of a cherry-pick"),
    "a sparse checkout": ("git sparse-checkout set app", "is a sparse checkout"),
    "a hidden file": ("git update-index --skip-worktree docs/stage.md", "docs/stage.md"),
}

# Commands that make settings of the person, for all repositories.
PERSONAL = {
    "attributes of a filter": (
        "echo 'copier.yml filter=x' > ../attributes;"
        "git config --global core.attributesFile $PWD/../attributes;"
        "git config --global filter.x.smudge 'tr a-z A-Z'"
    ),
    "a git template with a sparse checkout": (
        "mkdir -p ../t/info; echo /app > ../t/info/sparse-checkout;"
        "git config --file ../t/config core.sparseCheckout true;"
        "git config --global init.templateDir $PWD/../t"
    ),
    "a git template with another work tree": (
        "mkdir ../t ../other; touch ../other/mine;"
        "git config --file ../t/config core.worktree $PWD/../other;"
        "git config --global init.templateDir $PWD/../t"
    ),
    "a git template with broken settings": (
        "mkdir ../t; echo '[[[' > ../t/config; git config --global init.templateDir $PWD/../t"
    ),
    "a branch name that git refuses": "git config --global init.defaultBranch ..",
}

READ_ONLY = {
    ".git": "Read-only file system",
    ".git/objects": "Read-only file system. Nothing was changed.",
    ".git/refs": "Read-only file system. Nothing was changed.",
    ".git/logs": "Read-only file system. Nothing was changed.",
    ".git/index": "cannot be committed",
    "app": "Read-only file system",
    ".": "Read-only file system",
}


def comes_to(repo: Repo, state: str) -> None:
    repo.person.runs("sh", "-c", state, at=repo.folder)


def files(repo: Repo) -> dict[str, tuple[int, bytes]]:
    top = f"{repo.folder}/.git/"
    return {name: it for name, it in repo.person.everything().items() if not name.startswith(top)}


def refuses(repo: Repo, *words: str) -> str:
    """Refused in one line, and each file is as before. In .git objects may be left."""
    before, staged = files(repo), repo.person.runs("git", "ls-files", "-s", at=repo.folder).stdout
    done = repo.rung(*words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("rung: ")
    assert done.stderr.count("\n") == 1
    assert "bug of Rung" not in done.stderr
    assert "git init" not in done.stderr
    assert files(repo) == before
    assert repo.person.runs("git", "ls-files", "-s", at=repo.folder).stdout == staged
    return done.stderr


@pytest.mark.parametrize(("state", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_state_that_stops_a_step_is_named(repo: Repo, state: str, said: str) -> None:
    comes_to(repo, state)
    assert said in refuses(repo, *TO_COMMIT)


@pytest.mark.parametrize("state", WORKS.values(), ids=WORKS.keys())
def test_a_state_that_does_not_matter_changes_nothing(repo: Repo, state: str) -> None:
    comes_to(repo, state)
    before = files(repo)
    for words in (TO_COMMIT, ("undo",)):
        done = repo.rung(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert repo.status() == []
    assert files(repo) == before


def with_own_settings(repo: Repo, state: str) -> None:
    own = repo.person.temporary.parent / "gitconfig"
    own.write_bytes(Path(repo.person.environment["GIT_CONFIG_GLOBAL"]).read_bytes())
    repo.person.environment["GIT_CONFIG_GLOBAL"] = str(own)
    # git before 2.32 does not know GIT_CONFIG_GLOBAL: --global would change our own settings.
    comes_to(repo, state.replace("--global", "--file $GIT_CONFIG_GLOBAL"))


@pytest.mark.parametrize("state", PERSONAL.values(), ids=PERSONAL.keys())
def test_a_persons_settings_change_no_template_and_no_project(repo: Repo, state: str) -> None:
    tree = repo.git("rev-parse", "HEAD^{tree}")
    with_own_settings(repo, state)
    new = ("new", "../inn/shop", f"--template={repo.answers()['_src_path']}")
    for words in (TO_COMMIT, ("undo",), new):
        done = repo.rung(*words)
        assert (done.returncode, done.stderr) == (0, "")
    inn = Repo(repo.person, repo.person.desk / "inn" / "shop")
    assert inn.git("rev-parse", "HEAD^{tree}") == tree
    assert inn.status() == repo.status() == []


def test_a_new_repository_has_the_hooks_of_the_persons_git_template(repo: Repo) -> None:
    with_own_settings(
        repo,
        "mkdir -p ../t/hooks; printf '#!/bin/sh\nexit 1\n' > ../t/hooks/pre-commit;"
        "chmod +x ../t/hooks/pre-commit; git config --global init.templateDir $PWD/../t",
    )
    done = repo.rung("new", "../inn")
    assert (done.returncode, done.stderr) == (0, "")
    assert (repo.person.desk / "inn" / ".git" / "hooks" / "pre-commit").is_file()


def test_new_files_that_the_persons_git_ignores_are_named(repo: Repo) -> None:
    with_own_settings(
        repo,
        "echo slow_queries.py > ../ignored; git config --global core.excludesFile $PWD/../ignored",
    )
    said = repo.advances()
    added = "git add -f app/infra/slow_queries.py"
    assert said.count(f"Your git ignores new files. Add them:\n    {added}\n") == 1
    repo.person.runs("sh", "-c", f"{added} && git add . && git commit -qam x", at=repo.folder)
    assert "app/infra/slow_queries.py" in repo.git("ls-files").splitlines()


@pytest.mark.parametrize("words", [("new", "../inn"), ("advance", "--yes"), ("status",)])
def test_broken_settings_of_the_person_are_named(repo: Repo, words: tuple[str, ...]) -> None:
    with_own_settings(repo, "echo '[[[' >> $GIT_CONFIG_GLOBAL")
    done = repo.rung(*words)
    assert done.returncode == 1
    said = done.stderr
    assert "Make git status work in" in said
    assert "bad config line" in said
    assert "Commit it" not in said


@pytest.mark.parametrize(("state", "said"), NOT_UNDONE.values(), ids=NOT_UNDONE.keys())
def test_an_undo_that_git_could_not_commit_touches_no_file(
    repo: Repo, state: str, said: str
) -> None:
    comes_to(repo, CONFLICT)
    repo.advances("--commit")
    comes_to(repo, state)
    assert said in refuses(repo, "undo")


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """For root too."""
    mounted = subprocess.run(["mount", "--bind", place, place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a folder cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize(("place", "said"), READ_ONLY.items())
def test_a_step_is_not_half_done_where_a_folder_is_read_only(
    repo: Repo, place: str, said: str
) -> None:
    with read_only(repo.folder / place):
        assert said in refuses(repo, *TO_COMMIT)


@pytest.mark.parametrize("commit", [True, False])
def test_an_undo_that_git_cannot_record_is_finished_later(repo: Repo, commit: bool) -> None:
    before = files(repo)
    repo.advances(*(["--commit"] if commit else []))
    lock = repo.folder / ".git" / ("HEAD.lock" if commit else "index.lock")
    repo.git("add", "--intent-to-add", ".")
    lock.touch()
    done = repo.rung("undo")
    assert done.returncode == 1
    assert "The files are as before the step" in done.stderr
    assert f"{lock} exists" in done.stderr
    assert done.stderr.count("\n") == 1
    assert files(repo) == before
    lock.unlink()
    assert repo.rung("undo").returncode == 0
    assert repo.status() == []
    assert files(repo) == before


FULL_DISK = """\
import errno, os
from rung import advance
from rung.__main__ import main

def take_back(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

advance.take_back = take_back
main()
"""


def test_a_step_that_is_neither_committed_nor_taken_back_is_undone_later(repo: Repo) -> None:
    before = files(repo)
    lock = repo.folder / ".git" / "HEAD.lock"
    lock.touch()
    done = repo.person.runs(sys.executable, "-c", FULL_DISK, *TO_COMMIT, at=repo.folder)
    assert done.returncode == 1
    assert "was applied. It cannot be committed" in done.stderr
    assert "No space left on device. Remove the cause, then run rung undo." in done.stderr
    assert done.stderr.count("\n") == 1
    lock.unlink()
    assert repo.rung("undo").returncode == 0
    assert files(repo) == before
