"""`rung advance` and `rung upgrade` refuse unsafe repos and wrong answers, and change nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest
from growing import Repo, release, write
from people import Person, git
from rung.answers_check import other_answers
from rung.imports import imported
from rung.rendering import Rendered
from rung.stages import LADDER

ADVANCE = ("advance", "--yes")

MIGRATION = """\
revision: str = "{revision}"
down_revision: str | None = {down}
"""


@pytest.mark.parametrize("command", [ADVANCE, ("advance", "--dry-run")])
def test_uncommitted_changes_are_refused(repo: Repo, command: tuple[str, ...]) -> None:
    repo.write("README.md", "Rewritten.\n")
    reason = repo.refuses(*command)
    assert "changes that are not committed (README.md). Commit or stash them." in reason


def test_a_staged_file_is_refused(repo: Repo) -> None:
    repo.write("app/new.py", "")
    repo.git("add", "app/new.py")
    assert "(app/new.py)" in repo.refuses(*ADVANCE)


def test_untracked_files_that_are_not_in_the_way_may_stay(repo: Repo) -> None:
    repo.write("notes.txt", "mine\n")
    repo.advances()
    assert repo.text("notes.txt") == "mine\n"


def test_a_folder_that_is_no_project_is_refused(person: Person) -> None:
    with person.leaving_no_trace():
        done = person.types(*ADVANCE)
    assert (done.returncode, done.stderr) == (
        1,
        "rung: . is not a repo of Rung's: there is no .copier-answers.yml in it or above it. "
        "Name a repo's folder. If the file was deleted: git log -p -- .copier-answers.yml\n",
    )


def test_a_folder_that_is_not_there_is_refused(person: Person) -> None:
    assert "nowhere is not a folder." in person.types(*ADVANCE, "nowhere").stderr


def test_a_project_in_no_repository_is_refused(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git")
    assert "git init && git add --all && git commit" in repo.refuses(*ADVANCE)


def test_a_repository_without_a_commit_is_refused(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git")
    repo.git("init", "--quiet")
    assert "has no commit yet" in repo.refuses(*ADVANCE)


def test_uncommitted_answers_are_refused(repo: Repo) -> None:
    repo.git("rm", "--quiet", "--cached", ".copier-answers.yml")
    repo.git("commit", "--quiet", "--message=Forget the answers")
    assert ".copier-answers.yml is not committed" in repo.refuses(*ADVANCE)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("<<<<<<< HEAD\nstage: 1\n", "it is not YAML"),
        ("", "it is not a mapping"),
        ("- stage\n", "it is not a mapping"),
        ("_commit: v0.1.0\nstage: 1\n", "it names no _src_path"),
        ("_src_path: /x\nstage: 1\n", "it names no _commit"),
        ("_src_path: /x\n_commit: v0.1.0\nstage: two\n", "stage is 'two'"),
        ("_src_path: /x\n_commit: v0.1.0\nstage: true\n", "stage is True"),
    ],
)
def test_broken_answers_are_refused(repo: Repo, broken: str, reason: str) -> None:
    repo.write(".copier-answers.yml", broken)
    repo.commit()
    said = repo.refuses(*ADVANCE)
    assert reason in said
    assert "git log -p -- .copier-answers.yml" in said


@pytest.mark.slow
def test_a_stage_lowered_by_hand_is_refused(repo: Repo) -> None:
    repo.advances("--commit")
    repo.edits(".copier-answers.yml", "stage: 2", "stage: 1")
    reason = repo.refuses(*ADVANCE)
    assert "The answers say stage: 1, but the files belong to stage: 2" in reason


@pytest.mark.slow
def test_only_choices_that_decide_on_files_are_tried() -> None:
    teams = {"choices": [f"team-{number}" for number in range(40)]}
    cloud = {"choices": {"Amazon": "aws", "Google": "gcp"}}
    derived = {"when": False, "default": "{{ pooler == 'b' }}"}
    questions = {"team": teams, "cloud": cloud, "pooler": {"choices": ["a", "b"]}, "is_b": derived}
    excludes = ["{% if cloud == 'aws' %}gcp.tf{% endif %}"]
    rendered = Rendered(Path(), {}, questions, excludes, lambda _: False)
    answers = {"stage": 1, "team": "team-7", "cloud": "aws", "pooler": "a", "audit": True}
    assert list(other_answers(answers, rendered)) == [
        *(("stage", stage) for stage in (2, 3, 4)),
        ("cloud", "gcp"),
        ("pooler", "b"),
        ("audit", False),
    ]


def test_advancing_from_the_last_stage_is_refused(repo: Repo) -> None:
    repo.advances(f"--to={LADDER[-1].number}", "--commit")
    assert "the last stage" in repo.refuses(*ADVANCE)


def test_advancing_to_a_lower_stage_says_what_to_do_instead(repo: Repo) -> None:
    repo.advances("--commit")
    reason = repo.refuses(*ADVANCE, "--to=1")
    assert "git revert" in reason
    assert "docs/runbooks/to-stage-2.md" in reason


@pytest.mark.parametrize("stage", ["0", "9", "-1"])
def test_a_stage_beyond_the_ladder_is_refused(repo: Repo, stage: str) -> None:
    reason = repo.refuses(*ADVANCE, f"--to={stage}")
    assert f"There is no stage {stage}: the ladder ends at {LADDER[-1]}." in reason


def test_a_stage_in_words_is_refused(repo: Repo) -> None:
    assert repo.rung(*ADVANCE, "--to=two").returncode == 2


def test_an_answer_to_a_question_that_is_not_asked_is_refused(repo: Repo) -> None:
    reason = repo.refuses(*ADVANCE, "--data=colour=blue", code=2)
    assert "The template does not ask for colour." in reason


def test_an_answer_to_a_question_that_the_stage_does_not_ask_is_refused(repo: Repo) -> None:
    reason = repo.refuses(*ADVANCE, "--to=1", "--data=replica_routing=true", code=2)
    assert "replica_routing is not asked at stage 1 (foundation), but from stage 2" in reason


def test_an_answer_other_than_yes_or_no_is_refused(repo: Repo) -> None:
    reason = repo.refuses("advance", "--dry-run", "--data=replica_routing=wrong", code=2)
    assert "replica_routing: 'wrong' is neither yes nor no. Write true or false." in reason


def test_an_answer_that_changes_nothing_is_refused(repo: Repo) -> None:
    reason = repo.refuses(*ADVANCE, "--to=1", "--data=team=shop-team")
    assert reason == "rung: The repo is at stage 1 (foundation) with team=shop-team already.\n"


def test_an_option_whose_files_were_edited_is_not_turned_off(repo: Repo) -> None:
    repo.advances("--commit", "--data=replica_routing=true")
    repo.edits("dev/replica.py", "REPLICAS = 1", "REPLICAS = 2")
    reason = repo.refuses(*ADVANCE, "--to=2", "--data=replica_routing=false")
    assert "deletes files that you have edited: dev/replica.py" in reason


def test_an_option_whose_files_the_team_imports_is_not_turned_off(
    repo: Repo, own_growing_template: Path
) -> None:
    repo.advances("--commit", "--data=replica_routing=true")
    repo.write("app/a.py", "def ask() -> int:\n    from dev.replica import REPLICAS\n")
    repo.write("app/b.py", "import os, dev.replica as one\nPATTERN = '\\d'\n")
    repo.write("app/c/d.py", "from dev import (\n    ports,\n    replica,\n)\n")
    repo.write("app/other.py", "import dev.replica_of_ours  # not: import dev.replica\n")
    repo.write("app/no_python.py", "from dev.replica import (\n")
    repo.commit()
    (own_growing_template / "template" / "dev" / "replica.py").unlink()
    release(own_growing_template, "v0.2.0")
    for command in ((*ADVANCE, "--to=2"), ("upgrade",)):
        reason = repo.refuses(*command, "--data=replica_routing=false")
        assert "files that your code imports: app/a.py, app/b.py, app/c/d.py. " in reason
    # Without a changed answer the upgrade goes on: the team edits its imports afterwards.
    assert repo.rung("upgrade").returncode == 0


def test_a_relative_import_is_read_from_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "app/a/b.py", "from ..infra import cache\nfrom . import c\nfrom .d import e\n")
    found = ["app.infra", "app.infra.cache", "app.a", "app.a.c", "app.a.d", "app.a.d.e"]
    assert list(imported(tmp_path, "app/a/b.py")) == found


@pytest.mark.parametrize("command", [ADVANCE, ("upgrade",)])
def test_a_stage_among_the_answers_is_refused(repo: Repo, command: tuple[str, ...]) -> None:
    assert "rung advance --to N" in repo.refuses(*command, "--data=stage=3", code=2)


def test_a_template_that_is_gone_is_refused(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "_src_path: ", "_src_path: /gone")
    reason = repo.refuses(*ADVANCE)
    assert "template is no longer at " in reason


@pytest.mark.slow
def test_a_template_that_moved_is_found_at_the_given_place(
    repo: Repo, growing_template: Path
) -> None:
    repo.edits(".copier-answers.yml", "_src_path: ", "_src_path: /gone")
    repo.advances("--template", growing_template)
    assert repo.answers()["_src_path"] == str(growing_template)


@pytest.mark.slow
def test_a_template_recorded_by_a_relative_path_is_refused(
    repo: Repo, growing_template: Path
) -> None:
    repo.edits(".copier-answers.yml", f"_src_path: {growing_template}", "_src_path: .")
    assert "records its template as ., which is not an absolute path" in repo.refuses(*ADVANCE)
    repo.advances("--template", growing_template)


def test_a_template_without_the_recorded_version_is_refused(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "_commit: v0.1.0", "_commit: v0.0.9-3-gabcdef0")
    assert "does not have v0.0.9-3-gabcdef0. Fetch it there" in repo.refuses(*ADVANCE)


def test_a_version_that_was_withdrawn_at_a_url_is_refused(
    repo: Repo, growing_template: Path
) -> None:
    url = f"git+{growing_template.as_uri()}"
    repo.edits(".copier-answers.yml", f"_src_path: {growing_template}", f"_src_path: {url}")
    repo.edits(".copier-answers.yml", "v0.1.0", "v0.0.9")
    line = repo.refuses(*ADVANCE)
    assert f"The template {url} does not have v0.0.9. Push this tag" in line


def test_a_template_that_is_no_repository_is_refused(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    source = repo.answers()["_src_path"]
    repo.edits(".copier-answers.yml", source, str(tmp_path / "plain"))
    assert "is not in git" in repo.refuses(*ADVANCE)


@pytest.mark.slow
def test_a_url_that_does_not_answer_is_refused(repo: Repo) -> None:
    source = repo.answers()["_src_path"]
    repo.edits(".copier-answers.yml", source, "git+file:///nowhere")
    assert "cannot be fetched" in repo.refuses(*ADVANCE)


def test_two_migration_heads_are_refused(repo: Repo) -> None:
    for revision, down in {"0001": "None", "0002": '"0001"', "ours": '"0001"'}.items():
        repo.write(
            f"migrations/versions/{revision}.py",
            MIGRATION.format(revision=revision, down=down),
        )
    repo.commit()
    reason = repo.refuses(*ADVANCE)
    assert "2 heads (0002, ours)" in reason
    assert "alembic merge heads" in reason


@pytest.mark.slow
def test_merged_migration_heads_advance(repo: Repo) -> None:
    for revision, down in {
        "0001": "None",
        "0002": '"0001"',
        "ours": '"0001"',
        "both": '("0002", "ours")',
    }.items():
        repo.write(
            f"migrations/versions/{revision}.py",
            MIGRATION.format(revision=revision, down=down),
        )
    repo.commit()
    repo.advances()


@pytest.mark.parametrize(
    ("mark", "operation"),
    [
        ("MERGE_HEAD", "a merge"),
        ("CHERRY_PICK_HEAD", "a cherry-pick"),
        ("REVERT_HEAD", "a revert"),
        ("rebase-merge", "a rebase"),
        ("BISECT_LOG", "a bisect"),
        ("sequencer", "a cherry-pick or revert of several commits"),
        ("index.lock", "another git command"),
    ],
)
def test_a_git_operation_under_way_is_refused(repo: Repo, mark: str, operation: str) -> None:
    (repo.folder / ".git" / mark).write_text("")
    assert f"is in the middle of {operation}" in repo.refuses(*ADVANCE)


def test_committed_files_that_gitignore_matches_are_refused(repo: Repo) -> None:
    repo.write("app/cache.log", "kept\n")
    repo.write(".gitignore", repo.text(".gitignore") + "*.log\n")
    repo.git("add", "--all", "--force")
    repo.commit()
    reason = repo.refuses(*ADVANCE)
    assert "(app/cache.log)" in reason
    assert "git rm --cached" in reason


@pytest.mark.parametrize("bit", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_hidden_from_git_is_refused(repo: Repo, bit: str) -> None:
    repo.git("update-index", bit, "app/infra/simple.py")
    repo.write("app/infra/simple.py", "Edited in secret.\n")
    assert "told to ignore edits" in repo.refuses(*ADVANCE)


@pytest.mark.parametrize("only", [["app"], ["--no-cone", "/*"]])
def test_a_sparse_checkout_is_refused(repo: Repo, only: list[str]) -> None:
    repo.git("sparse-checkout", "set", *only)
    assert "Run git sparse-checkout disable first." in repo.refuses(*ADVANCE)


def test_a_second_rung_in_the_same_repo_is_refused(repo: Repo) -> None:
    holder = subprocess.Popen(
        ["flock", repo.folder / ".git", "sh", "-c", "echo locked; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "locked\n"
    try:
        assert "Another rung is running" in repo.refuses(*ADVANCE)
    finally:
        holder.communicate("\n")


@pytest.mark.slow
def test_the_option_commit_is_refused_when_git_knows_no_author(repo: Repo) -> None:
    write(repo.person.temporary.parent / "gitconfig", "[user]\n\tuseConfigOnly = true\n")
    repo.person.environment["GIT_CONFIG_GLOBAL"] = str(repo.person.temporary.parent / "gitconfig")
    reason = repo.refuses(*ADVANCE, "--commit")
    assert "git does not know who you are" in reason
    assert "leave out --commit" in reason


@pytest.mark.slow
def test_the_folder_of_a_submodule_does_not_change(repo: Repo, small_template: Path) -> None:
    add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add"]
    git(*add, str(small_template), "vendor/rung", cwd=repo.folder)
    repo.commit()
    repo.advances("--commit")
    assert repo.status() == []
