"""`rung fleet` shows each repo's stage and version. It changes nothing and clones no local repo."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

import pytest
from fleets import ANSWERS, Host, answers, bare_repo, host
from growing import Repo, release
from people import Person, git
from rung.fleet import blobs
from rung.fleet.hosts import HostError
from rung.fleet.sources import find
from rung.fleet.survey import WANTED, survey


@pytest.fixture
def fleet(person: Person) -> Path:
    folder = person.desk / "fleet"
    folder.mkdir()
    return folder


@pytest.fixture
def api(person: Person) -> Iterator[Host]:
    with host() as running:
        for name in ("GITHUB", "GITLAB"):
            person.environment |= {f"{name}_API_URL": running.url, f"{name}_TOKEN": "s3cret"}
        yield running


def told(person: Person, *words: str | Path, code: int = 0) -> dict[str, dict[str, Any]]:
    with person.leaving_no_trace():
        done = person.types("fleet", *words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return {row["repo"]: row for row in json.loads(done.stdout)["repos"]}


def test_the_table_shows_where_each_repo_stands(
    person: Person, fleet: Path, own_template: Path
) -> None:
    for version in ("v0.2.0", "v0.3.0"):
        (own_template / "template" / "version.txt").write_text(version)
        release(own_template, version)
    bare_repo(fleet / "shop.git", {ANSWERS: answers(own_template, stage=2, replica_routing=True)})
    verdict = json.dumps({"verdict": {"rule": "stay", "text": "Stay where you are."}}).encode()
    bare_repo(
        fleet / "deep" / "tea.git",
        {
            ANSWERS: answers(own_template, _commit="v0.3.0", team="oolong", region="eu"),
            ".dev/doctor.json": verdict,
        },
    )
    with person.leaving_no_trace():
        done = person.types("fleet", fleet, "--template", own_template)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "repo          stage  version  behind  options          owner   doctor",
        "deep/tea.git  1      v0.3.0   0       region=eu        oolong  stay",
        "shop.git      2      v0.1.0   2       replica_routing  tea",
        "",
        "2 repos: 1 at stage 1, 1 at stage 2, 1 behind",
    ]


def test_hangul_takes_two_columns_of_the_table(
    person: Person, fleet: Path, small_template: Path
) -> None:
    for name, team in (("상점", "상점팀"), ("tea", "tea")):
        bare_repo(fleet / name, {ANSWERS: answers(small_template, team=team)})
    done = person.types("fleet", fleet, "--template", small_template)
    assert done.stdout.splitlines()[:3] == [
        "repo  stage  version  behind  options  owner   doctor",
        "tea   1      v0.1.0   0                tea",
        "상점  1      v0.1.0   0                상점팀",
    ]


def test_json_shows_the_same(person: Person, fleet: Path, small_template: Path) -> None:
    bare_repo(fleet / "shop", {ANSWERS: answers(small_template, description="Sells tea")})
    shop = told(person, fleet)["shop"]
    assert shop == {
        "repo": "shop", "place": str(fleet / "shop"), "stage": 1, "version": "v0.1.0",
        "template": str(small_template), "behind": 0, "options": {}, "owner": "tea", "doctor": "",
        "edited": None, "problem": "", "breaks": [],
    }  # fmt: skip


@pytest.mark.slow
def test_a_work_tree_shows_its_last_commit_and_its_doctors_verdict(
    person: Person, repo: Repo
) -> None:
    repo.write(".dev/doctor.json", '{"verdict": "stay"}')
    repo.write(ANSWERS, "not: committed\n")
    shop = told(person, person.desk)["shop"]
    assert (shop["stage"], shop["doctor"]) == (1, "stay")


def test_a_repo_with_several_work_trees_is_one_repo(
    person: Person, fleet: Path, small_template: Path
) -> None:
    bare_repo(fleet / "shop.git", {ANSWERS: answers(small_template)})
    git("clone", "--quiet", str(fleet / "shop.git"), str(fleet / "tea"), cwd=fleet)
    git("worktree", "add", "--quiet", str(fleet / "a-tree"), cwd=fleet / "tea")
    git("worktree", "add", "--quiet", str(fleet / "b-tree"), cwd=fleet / "shop.git")
    assert set(told(person, fleet)) == {"shop.git", "tea"}
    trees = person.desk / "trees"
    trees.mkdir()
    (fleet / "b-tree").rename(trees / "b-tree")
    assert set(told(person, trees)) == {"b-tree"}
    assert person.types("fleet", trees).stdout.endswith("\n1 repo: 1 at stage 1\n")


@pytest.mark.slow
def test_drift_lists_the_edited_and_missing_files_of_rungs(
    repo: Repo, growing_template: Path
) -> None:
    repo.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False")
    repo.git("rm", "--quiet", "dev/uv")
    repo.edits("README.md", "Shop", "Ours")
    template = f"--template={growing_template}"
    drift = told(repo.person, repo.folder, "--drift", template)["shop"]
    assert drift["edited"] == ["app/infra/simple.py", "dev/uv"]
    assert told(repo.person, repo.folder, template)["shop"]["edited"] is None
    shown = repo.person.types("fleet", repo.folder, "--drift", template).stdout
    assert "    app/infra/simple.py\n    dev/uv\n" in shown


POLICIES = {
    "--max-behind": ("0", "1 versions behind, at most 0 allowed"),
    "--min-version": ("v0.2.0", "version v0.1.0, at least v0.2.0 required"),
    "--min-stage": ("2", "stage 1, at least 2 required"),
}


@pytest.mark.slow
@pytest.mark.parametrize("option", POLICIES)
def test_a_broken_policy_exits_1_and_names_the_repos(
    person: Person, fleet: Path, own_template: Path, option: str
) -> None:
    (own_template / "template" / "version.txt").write_text("2")
    release(own_template, "v0.2.0")
    value, said = POLICIES[option]
    bare_repo(fleet / "old", {ANSWERS: answers(own_template)})
    bare_repo(fleet / "new", {ANSWERS: answers(own_template, _commit="v0.2.0", stage=2)})
    bare_repo(fleet / "others", {"README.md": b"Not Rung's.\n"})
    done = person.types("fleet", fleet, option, value, "--template", own_template)
    assert done.returncode == 1
    assert done.stderr == f"rung: 1 of 3 repos break the policy:\n  old: {said}\n"
    told(person, fleet / "new", option, value, "--template", own_template)


def test_a_template_without_version_tags_breaks_a_policy_on_versions(
    person: Person, fleet: Path, own_template: Path
) -> None:
    git("tag", "release-2026.11", "v0.1.0", cwd=own_template)
    git("tag", "--delete", "v0.1.0", cwd=own_template)
    bare_repo(fleet / "old", {ANSWERS: answers(own_template, _commit="release-2026.11")})
    done = person.types("fleet", fleet, "--max-behind", "0", "--template", own_template)
    assert done.returncode == 1
    assert "has no version tags" in done.stderr


def hostile_fleet(fleet: Path, template: Path) -> dict[str, str]:
    """The reason for each repo that cannot be read."""
    good = answers(template)
    files: dict[str, tuple[dict[str, bytes], str]] = {
        "aliases": ({ANSWERS: b"a: &a x\nb: *a\n"}, f"{ANSWERS}: it has YAML aliases"),
        "binary": ({ANSWERS: b"\xff\xfe\x00"}, f"{ANSWERS}: it is not UTF-8"),
        "deep": ({ANSWERS: b"[" * 5000}, "it is nested deeper than 50 levels"),
        "huge": ({ANSWERS: b"a" * (2 << 20)}, "is larger than 64 KiB"),
        "list": ({ANSWERS: b"- stage\n"}, f"{ANSWERS}: it is not a mapping"),
        "link": ({ANSWERS: b">/etc/passwd"}, "is not a mapping"),
        "loop": ({ANSWERS: b">" + ANSWERS.encode()}, "is not a mapping"),
        "none": ({"README.md": b"x"}, "it has no .copier-answers.yml"),
        "folder": ({f"{ANSWERS}/stage": b"1"}, "is not a file"),
        "no-stage": ({ANSWERS: good.replace(b"stage: 1", b"")}, f"{ANSWERS}: it names no stage"),
        "stage-9": (
            {ANSWERS: good.replace(b"stage: 1", b"stage: 9")},
            "stage is 9, and the stages are 1 to 4",
        ),
        "option": (
            {ANSWERS: answers(template, _commit="--upload-pack=x")},
            f"{ANSWERS}: _commit is",
        ),
        "steering": ({ANSWERS: answers(template, _src_path="a\x1b[2J")}, "_src_path is"),
    }
    for name, (content, _) in files.items():
        bare_repo(fleet / name, content)
    said = {name: words for name, (_, words) in files.items()}
    (fleet / "empty").mkdir()
    os.mkfifo(fleet / "fifo")
    (fleet / "to-itself").symlink_to(fleet / "to-itself")
    (fleet / "to-the-top").symlink_to("/")
    git("init", "--quiet", "--bare", str(fleet / "unborn"), cwd=fleet)
    bare_repo(fleet / "no-head", {ANSWERS: good})
    (fleet / "no-head" / "HEAD").unlink()
    bare_repo(fleet / "no-objects", {ANSWERS: good})
    for pack in (fleet / "no-objects" / "objects").rglob("*"):
        pack.unlink() if pack.is_file() else None
    return said | {
        "empty": "it is not a git repository",
        "fifo": "it is not a folder",
        "to-itself": "it is a symbolic link",
        "to-the-top": "it is a symbolic link",
        "unborn": "it has no commit at HEAD",
        "no-head": "git cannot read it: fatal: not a git repository",
        "no-objects": "it has no commit at HEAD",
    }


def test_broken_repos_are_rows_with_a_reason(
    person: Person, fleet: Path, small_template: Path
) -> None:
    reasons = hostile_fleet(fleet, small_template)
    bare_repo(fleet / "sound", {ANSWERS: answers(small_template)})
    rows = told(person, fleet)
    assert rows.pop("sound")["problem"] == ""
    assert {name: row["stage"] for name, row in rows.items()} == dict.fromkeys(reasons)
    wrong = {n: row["problem"] for n, row in rows.items() if reasons[n] not in row["problem"]}
    assert wrong == {}
    shown = person.types("fleet", fleet)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(line.isprintable() for line in shown.stdout.splitlines())


@pytest.mark.slow
def test_an_unreadable_repo_breaks_every_policy(
    person: Person, fleet: Path, small_template: Path
) -> None:
    bare_repo(fleet / "list", {ANSWERS: b"- stage\n"})
    assert "cannot be read" in told(person, fleet, "--min-stage", "1", code=1)["list"]["breaks"][0]


def test_the_git_configuration_of_a_repo_runs_no_program(
    person: Person, fleet: Path, small_template: Path, tmp_path: Path
) -> None:
    ran, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    hostile = bare_repo(fleet / "hostile", {ANSWERS: answers(small_template)})
    (hostile / "hooks").mkdir(exist_ok=True)
    (hostile / "hooks" / "post-checkout").symlink_to(program)
    for key, value in {
        "core.fsmonitor": str(program),
        "core.pager": str(program),
        "core.sshCommand": str(program),
        "core.alternateRefsCommand": str(program),
        "alias.cat-file": f"!{program}",
        "diff.external": str(program),
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{program}",
        "remote.origin.uploadpack": str(program),
    }.items():
        git("config", key, value, cwd=hostile)
    assert told(person, fleet)["hostile"]["stage"] == 1
    blob = git("rev-parse", f"HEAD:{ANSWERS}", cwd=hostile).strip()
    (hostile / "objects" / blob[:2] / blob[2:]).unlink()  # Now git would fetch it.
    for source in (f"ext::{program}", "ssh://127.0.0.1/x", str(fleet.parent)):
        git("config", "remote.origin.url", source, cwd=hostile)
        assert told(person, fleet)["hostile"]["stage"] is None
    assert not ran.exists()


@pytest.mark.slow
def test_shallow_clones_and_clones_with_shared_objects_are_read(
    person: Person, fleet: Path, small_template: Path, tmp_path: Path
) -> None:
    whole = bare_repo(tmp_path / "whole", {ANSWERS: answers(small_template)})
    for name, how in {"shallow": "--depth=1", "borrowing": "--shared"}.items():
        source = whole.as_uri() if name == "shallow" else str(whole)
        git("clone", "--quiet", "--bare", how, source, str(fleet / name), cwd=fleet)
    assert [row["stage"] for row in told(person, fleet).values()] == [1, 1]


@pytest.mark.slow
def test_a_repo_that_blocks_git_is_given_up_after_a_timeout(
    fleet: Path, small_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PATIENCE", 1)
    stuck = bare_repo(fleet / "stuck", {ANSWERS: answers(small_template)})
    (stuck / "packed-refs").unlink(missing_ok=True)
    (stuck / "HEAD").unlink()
    os.mkfifo(stuck / "HEAD")
    (row,) = survey(find([str(fleet)], WANTED), None, drift=False)
    assert row.problem == "git took longer than 1 s"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_a_row(person: Person, fleet: Path) -> None:
    (fleet / "closed").mkdir(mode=0)
    assert "Permission denied" in told(person, fleet)["closed"]["problem"]


@pytest.mark.slow
def test_a_list_holds_paths_and_urls(
    person: Person, fleet: Path, small_template: Path, tmp_path: Path
) -> None:
    shop = bare_repo(fleet / "shop.git", {ANSWERS: answers(small_template)})
    listed = fleet / "list.txt"
    # Some editors write a byte order mark and end lines as Windows does.
    listed.write_text(f"\ufeff# Ours\r\nshop.git\n{shop.as_uri()}  # over git\nnowhere\n")
    rows = told(person, listed)
    assert {name: row["problem"] for name, row in rows.items()} == {
        "shop.git": "", "fleet/shop": "", "nowhere": "it is not a git repository",
    }  # fmt: skip


@pytest.mark.slow
def test_a_hash_in_a_name_begins_no_comment_and_a_home_is_filled_in(
    person: Person, fleet: Path, small_template: Path
) -> None:
    for name in ("c#", "tea"):
        bare_repo(fleet / name, {ANSWERS: answers(small_template)})
    person.environment["HOME"] = str(fleet)
    (fleet / "list").write_text("c#\t# in another language\n~/tea#\n~/tea\n#tea\n")
    rows = told(person, fleet / "list")
    assert {name: row["stage"] for name, row in rows.items()} == {"c#": 1, "tea": 1, "tea#": None}


@pytest.mark.slow
def test_drift_from_a_remote_template_needs_no_setting_for_bare_repositories(
    repo: Repo, growing_template: Path
) -> None:
    own = repo.person.desk.parent / "gitconfig"
    own.write_bytes(Path(repo.person.environment["GIT_CONFIG_GLOBAL"]).read_bytes())
    git("config", "--file", str(own), "safe.bareRepository", "explicit", cwd=repo.folder)
    repo.person.environment["GIT_CONFIG_GLOBAL"] = str(own)
    url = f"git+{growing_template.as_uri()}"
    repo.edits(ANSWERS, f"_src_path: {growing_template}", f"_src_path: {url}")
    (row,) = told(repo.person, repo.folder, "--drift", f"--template={url}").values()
    assert (row["edited"], row["problem"]) == ([], "")


@pytest.mark.slow
def test_a_password_in_a_url_is_not_shown(person: Person, fleet: Path) -> None:
    (fleet / "list").write_text("https://ada:s3cret@127.0.0.1:1/acme/shop.git\n")
    for how in ([], ["--json"]):
        done = person.types("fleet", fleet / "list", *how)
        assert "acme/shop" in done.stdout
        assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_repo_of_another_template_is_not_measured(
    person: Person, fleet: Path, small_template: Path
) -> None:
    bare_repo(fleet / "foreign", {ANSWERS: answers("https://example.com/other.git")})
    row = told(person, fleet)["foreign"]
    assert (row["behind"], row["problem"]) == (None, "it comes from another template")
    assert told(person, fleet, "--max-behind", "9", code=1)["foreign"]["breaks"]


@pytest.mark.parametrize("source", ["github:acme", "gitlab:acme"])
def test_an_organisation_is_read_over_the_api(
    person: Person, api: Host, small_template: Path, source: str
) -> None:
    for name in ("acme/a", "acme/b", "acme/c"):
        api.repos[name] = {ANSWERS: answers(small_template, team=name[-1]).decode()}
    api.repos["acme/c"][".dev/doctor.json"] = '{"verdict": "stay"}'
    api.repos["acme/website"] = {"README.md": "Not Rung's."}
    api.refusals = [(429, {"Retry-After": "0"}), (502, {})]
    rows = told(person, source)
    assert [row["owner"] for row in rows.values()] == ["a", "b", "c", ""]
    assert rows["acme/c"]["doctor"] == "stay"
    assert rows["acme/website"]["problem"] == "it has no .copier-answers.yml at its top"
    assert all("s3cret" in str(headers) for _, _, headers in api.asked)


REFUSALS: dict[str, tuple[list[tuple[int, dict[str, str]]], str]] = {
    "a wrong token": ([(401, {})], "answered 401"),
    "no such group": ([(404, {})], "answered 404"),
    "a redirect": ([(302, {"Location": "http://127.0.0.1:1/"})], "answered 302"),
    "a long wait": (
        [(429, {"Retry-After": "9999"})],
        "over its rate limit. Run this again in 9999 s",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", REFUSALS)
@pytest.mark.parametrize("source", ["github:acme", "gitlab:acme"])
def test_a_refusal_by_the_host_is_one_line_without_the_token(
    person: Person, api: Host, source: str, row: str
) -> None:
    api.refusals, said = list(REFUSALS[row][0]), REFUSALS[row][1]
    done = person.types("fleet", source)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


BAD: dict[str, tuple[list[str], str]] = {
    "no source": ([], "Missing argument"),
    "no such source": (["nowhere"], "There is no source nowhere"),
    "a word": ([".", "--max-behind", "x"], "--max-behind"),
    "a negative number": ([".", "--max-behind=-1"], "--max-behind"),
    "no version": ([".", "--min-version", "new"], "--min-version new is not a version"),
    "a long version": ([".", "--min-version", "9" * 5000], "is not a version"),
    "stage 5": ([".", "--min-stage", "5"], "--min-stage"),
    "no template": ([".", "--template", "nowhere"], "There is no template"),
    "a control character": (["a\x1bb"], "holds control characters"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", BAD)
def test_a_wrong_command_line_is_one_line_and_exit_2(person: Person, row: str) -> None:
    words, said = BAD[row]
    with person.leaving_no_trace():
        done = person.types("fleet", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert (done.stderr.count("\n"), "Traceback" in done.stderr) == (1, False)


@pytest.mark.slow
def test_an_organisation_without_a_token_says_which_one(person: Person) -> None:
    done = person.types("fleet", "github:acme")
    assert (done.returncode, "Set GITHUB_TOKEN" in done.stderr) == (1, True)


def test_a_token_never_goes_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", "s3cret")
    monkeypatch.setenv("GITLAB_API_URL", "http://gitlab.example/api/v4")
    with pytest.raises(HostError, match="must begin with https"):
        find(["gitlab:acme"], WANTED)


ANSWERED: dict[str, tuple[bytes, str]] = {
    "no HTTP": (b"what?\r\n\r\n", "cannot be reached: what?"),
    "a part": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]",
        "(2 bytes read, 7 more expected)",
    ),
    "no list": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", "did not send a list"),
}


@pytest.mark.parametrize("row", ANSWERED)
def test_a_broken_answer_of_the_host_is_one_line(monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    content, said = ANSWERED[row]
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Between the tries.

    class Broken(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(content)

    with TCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("GITLAB_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
        try:
            with pytest.raises(HostError, match=re.escape(said)):
                find(["gitlab:acme"], WANTED)
        finally:
            server.shutdown()


@pytest.mark.parametrize("url", ["https://[", "https://127.0.0.1:x"])
def test_a_wrong_address_of_the_host_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("GITLAB_API_URL", url)
    with pytest.raises(HostError):
        find(["gitlab:acme"], WANTED)


@pytest.mark.slow
def test_without_a_template_the_table_shows_the_rest(
    person: Person, fleet: Path, small_template: Path
) -> None:
    bare_repo(fleet / "shop", {ANSWERS: answers(small_template)})
    person.environment["RUNG_TEMPLATE"] = str(person.desk / "nowhere")
    done = person.types("fleet", fleet)
    assert done.returncode == 0
    assert "Versions behind are not counted" in done.stderr
    assert done.stdout.splitlines()[1].split()[:4] == ["shop", "1", "v0.1.0", "?"]
