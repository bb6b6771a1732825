"""What a shell, a disk or another program hands to `rung`: a step works, or one line says why not.

Each row is a state. Settings and states of git are in test_git_states.py.
"""

import subprocess

import pytest
from growing import Repo
from people import RUNG, in_locale, spell_otherwise

pytestmark = pytest.mark.slow

STEP = "rung advance --yes --commit"

# Commands that make a checkout of the repo, and its folder.
CHECKOUTS = {
    "a worktree": ("git worktree add -q ../w", "../w"),
    "a worktree of a bare repository": (
        "git clone -q --bare . ../b.git; git -C ../b.git worktree add -q ../w",
        "../w",
    ),
    "a submodule": (
        "git init -q ../super; cd ../super;"
        "git -c protocol.file.allow=always submodule -q add $OLDPWD shop; git commit -qam x",
        "../super/shop",
    ),
    "a shallow clone": (
        "git commit -q --allow-empty -m x; git clone -q --depth=1 file://$PWD ../s",
        "../s",
    ),
    "a partial clone": (
        "git config uploadpack.allowFilter true; git clone -q --filter=tree:0 file://$PWD ../s",
        "../s",
    ),
    "a link to the folder": ("ln -s shop ../link", "../link"),
    "a .git that is a link": ("mv .git ../git; ln -s ../git .git", "."),
    "a .git that lies elsewhere": (
        "mv .git ../git; echo gitdir: ../git > .git; git config core.worktree $PWD",
        ".",
    ),
    "a detached HEAD": ("git checkout -q --detach", "."),
    "a history cut off": ("git rev-parse HEAD > .git/shallow", "."),
}

# The parent of `rung` sets these. `exec` keeps them.
IGNORED_CHILDREN = (
    "python3 -c 'import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    "os.execvp(sys.argv[1], sys.argv[1:])'"
)

HANDED_DOWN = {
    "children's signals ignored": IGNORED_CHILDREN,
    # Three times what a step needs (15 files, 80 KiB) with Python 3.13 and git 2.39 on Debian 12.
    "48 open files": "ulimit -n 48; exec",
    "a stack of 300 KiB": "ulimit -s 300; exec",
    "umask 077": "umask 077; exec",
    "umask 000": "umask 000; exec",
    "a home that cannot be written": "HOME=/proc XDG_CACHE_HOME=/proc exec",
    "no home": "unset HOME; exec",
    "a home that is not utf-8": "HOME=$(printf '\\377') exec",
    "a terminal of one column": "COLUMNS=1 LINES=0 exec",
    "no kind of terminal": "TERM= exec",
    "output in ASCII": "PYTHONIOENCODING=ascii:strict exec",
    "no docstrings": "PYTHONOPTIMIZE=2 exec",
    "each warning an error": "PYTHONDEVMODE=1 PYTHONWARNINGS=error exec",
    "an endless input": "exec </dev/zero; exec",
    "an input to write to": "exec 0>/dev/null; exec",
    "errors to read from": "exec 2</dev/null; exec",
    "temporary files in the project": "TMPDIR=. exec",
}

DELETED = "mkdir ../d; cd ../d; rmdir ../d; exec"

# Before the command, the command, and words of the refusal.
REFUSED = {
    "no bytes in a file": ("ulimit -f 0; exec", STEP, "it was killed (File size limit exceeded)"),
    "no bytes in a file of the template": (
        "ulimit -f 0; exec",
        "rung new ../inn",
        "cannot be fetched: it was killed (File size limit exceeded)",
    ),
    "8 open files": ("ulimit -n 8; exec", STEP, "Too many open files"),
    "a deleted folder": (DELETED, "rung status", "This shell's folder was deleted"),
    "a deleted folder, and a relative path": (
        DELETED,
        "rung status .",
        "This shell's folder was deleted",
    ),
    "a deleted folder, and a step in another one": (
        DELETED,
        f"{STEP} $OLDPWD",
        "This shell's folder was deleted",
    ),
    "an output to read from": ("exec 1</dev/null; exec", "rung status", "Bad file descriptor"),
    "a failed commit, and children's signals ignored": (
        f"touch .git/HEAD.lock; {IGNORED_CHILDREN}",
        STEP,
        ".git/HEAD.lock exists",
    ),
    "another yaml": (
        "mkdir -p ../p/yaml; touch ../p/yaml/__init__.py; PYTHONPATH=../p exec",
        "rung status",
        "PYTHONPATH may hide a package that Rung needs. Run this without it: env -u PYTHONPATH "
        "rung …. Set RUNG_TRACEBACK=1 to see where.",
    ),
    "another copier": (
        "mkdir -p ../p/copier; touch ../p/copier/__init__.py; PYTHONPATH=../p exec",
        STEP,
        "env -u PYTHONPATH rung",
    ),
}

JOURNALS = {
    "words": "what?",
    "a list": "[]",
    "a list of lists": "[" * 20_000,
    "no moves": '{"intent": "x", "record": null, "head": "x", "tree": "x"}',
    "moves of numbers": '{"intent": "x", "record": null, "head": "x", "tree": "x", "moves": [7]}',
    "moves of words": '{"intent": "x", "record": null, "head": "x", "tree": "x", "moves": ["abc"]}',
}

# Text without quotes, as a person writes it.
NO_TEXT = {"an integer": "7", "a number": "1.5", "a number with a sign": "-2"}

# Text without quotes that YAML reads as another number, and that number.
OTHER_TEXT = {
    "an octal number": ("0123", "83"),
    "a zero at the end": ("1.50", "1.5"),
    "a time": ("1:30", "90"),
    "an underscore": ("12_000", "12000"),
}


def runs(repo: Repo, words: str) -> subprocess.CompletedProcess[str]:
    repo.person.environment["PATH"] = f"{RUNG.parent}:{repo.person.environment['PATH']}"
    return repo.person.runs("bash", "-c", words, at=repo.folder)


@pytest.mark.parametrize(("made", "place"), CHECKOUTS.values(), ids=CHECKOUTS.keys())
def test_a_checkout_of_each_kind_is_advanced_and_taken_back(
    repo: Repo, made: str, place: str
) -> None:
    assert runs(repo, made).returncode == 0
    started = runs(repo, f"git -C {place} rev-parse 'HEAD^{{tree}}'").stdout
    for words in (STEP, "rung undo", "git status --porcelain"):
        done = runs(repo, f"cd {place} && {words}")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout == ""
    assert runs(repo, f"git -C {place} rev-parse 'HEAD^{{tree}}'").stdout == started
    assert "Undo" in runs(repo, f"git -C {place} log -1 --format=%s").stdout


def test_a_folder_that_git_spells_otherwise_is_the_same_folder(repo: Repo) -> None:
    spell_otherwise(repo.person, repo.folder)
    for words in (("advance", "--yes", "--commit"), ("status",), ("undo",)):
        done = repo.rung(*words)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("before", HANDED_DOWN.values(), ids=HANDED_DOWN)
def test_what_the_parent_hands_down_changes_no_step(repo: Repo, before: str) -> None:
    before_the_step = repo.git("rev-parse", "HEAD^{tree}")
    for words in (STEP, "rung undo"):
        done = runs(repo, f"{before} {words}")
        assert (done.returncode, done.stderr) == (0, "")
        assert repo.status() == []
    assert repo.git("rev-parse", "HEAD^{tree}") == before_the_step
    assert repo.git("rev-list", "--count", "HEAD") == "3\n"
    assert repo.person.leftovers() == ["shop"]


@pytest.mark.parametrize(("before", "words", "said"), REFUSED.values(), ids=REFUSED)
def test_a_step_that_cannot_work_says_why_in_one_line(
    repo: Repo, before: str, words: str, said: str
) -> None:
    head = repo.git("rev-parse", "HEAD")
    done = runs(repo, f"{before} {words}")
    assert done.returncode in {1, 2}, done.stdout
    assert done.stderr.startswith("rung: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "bug of Rung" not in done.stderr
    assert repo.git("rev-parse", "HEAD") == head
    assert repo.status() == []


@pytest.mark.parametrize("locale", ["ja_JP.EUC-JP", "zh_TW.BIG5", "tr_TR.ISO-8859-9"])
def test_words_in_utf8_arrive_in_a_locale_that_cannot_decode_them(repo: Repo, locale: str) -> None:
    repo.person.environment |= in_locale(locale, repo.person.desk / "l")
    named = ("--data", "team=İstanbul 茶", "--data", "project_slug=inn")
    done = repo.rung("new", "../İI茶", *named)
    assert (done.returncode, done.stderr) == (0, "")
    written = (repo.person.desk / "İI茶" / ".copier-answers.yml").read_text(encoding="utf-8")
    assert "team: İstanbul 茶" in written


@pytest.mark.parametrize("written", JOURNALS.values(), ids=JOURNALS.keys())
def test_a_broken_journal_is_named(repo: Repo, written: str) -> None:
    for file in (".git/rung/journal.json", ".git/rung-undo.json"):
        repo.write(file, written)
        line = repo.refuses("undo")
        assert f"{file} is broken" in line
        assert "bug of Rung" not in line
        (repo.folder / file).unlink()


@pytest.mark.parametrize("file", [".git/rung/journal.json", ".git/rung-undo.json"])
def test_a_journal_that_cannot_be_read_is_named_with_the_reason(repo: Repo, file: str) -> None:
    (repo.folder / file).mkdir(parents=True)
    line = repo.refuses("undo")
    assert f"/{file} cannot be read: Is a directory. " in line


@pytest.mark.parametrize("written", NO_TEXT.values(), ids=NO_TEXT)
def test_a_recorded_answer_without_quotes_is_the_same_answer(repo: Repo, written: str) -> None:
    repo.edits(".copier-answers.yml", "team: shop-team", f"team: {written}")
    repo.advances()
    assert repo.answers()["team"] == written


@pytest.mark.parametrize(("written", "read"), OTHER_TEXT.values(), ids=OTHER_TEXT)
def test_a_recorded_answer_that_yaml_reads_as_another_number_is_refused(
    repo: Repo, written: str, read: str
) -> None:
    repo.edits(".copier-answers.yml", "team: shop-team", f"team: {written}")
    line = repo.refuses("advance", "--yes")
    assert f"The answer team: {written} is not valid" in line
    assert f"it would become {read}." in line
    assert repo.status() == []


@pytest.mark.parametrize("words", ["rung status", "rung status --json"])
def test_the_status_of_another_folder_needs_no_current_folder(repo: Repo, words: str) -> None:
    done = runs(repo, f"{DELETED} {words} $OLDPWD")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == runs(repo, f"{words} $PWD").stdout


def test_a_bug_stays_a_bug_where_pythonpath_is_set(repo: Repo) -> None:
    repo.write("../p/sitecustomize.py", "import json\n\njson.dumps = lambda *_, **__: 1 / 0\n")
    done = runs(repo, "PYTHONPATH=../p rung status --json")
    assert "This is a bug of Rung: ZeroDivisionError" in done.stderr
    assert "RUNG_TRACEBACK=1" in done.stderr
    assert "env -u PYTHONPATH" not in done.stderr


def test_a_verdict_that_nobody_writes_is_not_waited_for(repo: Repo) -> None:
    assert runs(repo, "mkdir .dev; mkfifo .dev/doctor.json").returncode == 0
    with repo.person.at_a_terminal("advance", "shop") as terminal:
        terminal.wait_for("Advance to stage 2")
        assert "Doctor: has not run yet" in terminal.text
        terminal.press("n\r")
        assert terminal.wait_for_the_end() == 0
