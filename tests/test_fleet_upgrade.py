"""`rung fleet upgrade`: a branch and a pull request for each repo, and none twice."""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from fleets import ANSWERS, Host, answers, bare_repo, host
from growing import Repo, release
from people import Person, git

pytestmark = pytest.mark.slow

BRANCH = "rung/upgrade-v0.2.0"


@dataclass
class Fleet:
    """Bare repos that were born from one template, which has a newer version by now."""

    person: Person
    folder: Path
    template: Path
    born: Repo

    def has(self, name: str, *edits: tuple[str, str, str]) -> Path:
        """A repo in which a team made these edits."""
        work = self.born.copied_to(self.folder.parent / "work" / name)
        for file, old, new in edits:
            work.edits(file, old, new)
        bare = self.folder / f"{name}.git"
        bare.parent.mkdir(parents=True, exist_ok=True)
        git("clone", "--quiet", "--bare", str(work.folder), str(bare), cwd=self.folder)
        return bare

    def upgrades(
        self, *words: str | Path, source: str | Path | None = None, code: int = 0
    ) -> dict[str, str]:
        done = self.types(*words, source=source)
        assert done.returncode == code, done.stdout + done.stderr
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
        return {rest.partition(":")[0]: kind for kind, rest in lines}

    def types(self, *words: str | Path, source: str | Path | None = None) -> CompletedProcess[str]:
        how = [f"--template={self.template}", "--per-minute=6000"]
        return self.person.types("fleet", "upgrade", source or self.folder, *how, *words)


@pytest.fixture
def fleet(repo: Repo, own_growing_template: Path) -> Fleet:
    wiring = own_growing_template / "template" / "app" / "infra" / "wiring.py.jinja"
    wiring.write_text(wiring.read_text().replace("RETRIES = 3", "RETRIES = 5"))
    release(own_growing_template, "v0.2.0")
    folder = repo.person.desk / "fleet"
    folder.mkdir()
    repo.person.patience = 300
    return Fleet(repo.person, folder, own_growing_template, repo)


@pytest.fixture
def api(fleet: Fleet) -> Iterator[Host]:
    """github:acme, whose repos are those of the fleet."""
    with host() as running:
        for name in ("GITHUB", "GITLAB"):
            variables = {f"{name}_API_URL": running.url, f"{name}_TOKEN": "s3cret"}
            fleet.person.environment |= variables
        running.clone_url = lambda name: (fleet.folder / f"{name}.git").as_uri()
        yield running


CONFLICT = ("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 9")


def test_a_dry_run_says_what_merges_and_what_conflicts_and_changes_nothing(fleet: Fleet) -> None:
    fleet.has("shop", ("app/infra/wiring.py", "WAIT_SECONDS = 5", "WAIT_SECONDS = 7"))
    fleet.has("tea", CONFLICT)
    bare_repo(fleet.folder / "new", {ANSWERS: answers(fleet.template, _commit="v0.2.0")})
    bare_repo(fleet.folder / "foreign", {ANSWERS: answers("https://example.com/other.git")})
    (fleet.folder / "empty").mkdir()
    with fleet.person.leaving_no_trace():
        done = fleet.types("--dry-run")
    assert done.stdout.splitlines() == [
        "skipped   empty: it is not a git repository",
        "skipped   foreign: it comes from another template",
        "newest    new: v0.2.0",
        "merges    shop.git: v0.1.0 to v0.2.0",
        "conflict  tea.git: app/infra/wiring.py. Both you and the step changed the same lines. "
        "Run there: rung upgrade --keep-conflicts",
    ]
    assert done.returncode == 1
    assert done.stderr == "rung: 1 of 5 repos cannot be upgraded to v0.2.0.\n"


def test_a_repo_that_cannot_be_read_is_a_failure(fleet: Fleet) -> None:
    fleet.has("shop")
    bare_repo(fleet.folder / "broken", {ANSWERS: b"stage: [1"})
    bare_repo(fleet.folder / "none", {"README.md": b"Not Rung's"})
    (fleet.folder / "link").symlink_to("shop.git")
    assert fleet.upgrades("--dry-run", code=1) == {
        "broken": "refused",
        "link": "skipped",
        "none": "skipped",
        "shop.git": "merges",
    }
    listed = fleet.person.desk / "repos.txt"
    listed.write_text("fleet/shop.git\nfleet/shp.git\n")
    done = fleet.types("--dry-run", source=listed)
    assert "refused   shp.git: it is not a git repository\n" in done.stdout
    assert done.stderr == "rung: 1 of 2 repos cannot be upgraded to v0.2.0.\n"
    assert done.returncode == 1


def test_a_template_that_no_repo_comes_from_is_refused(fleet: Fleet) -> None:
    fleet.has("shop")
    (fleet.folder / "empty").mkdir()
    moved = fleet.template.rename(fleet.template.with_name("moved here"))
    done = replace(fleet, template=moved).types()
    assert "skipped   shop.git: it comes from another template\n" in done.stdout
    assert done.returncode == 1
    assert done.stderr == (
        f"rung: No repo comes from the template {moved}. If the template has moved there, run in "
        f"each repo: rung upgrade --template '{moved}' --commit\n"
    )


@pytest.mark.parametrize("source", ["github:acme", "gitlab:acme"])
def test_each_repo_gets_one_branch_and_one_pull_request(
    fleet: Fleet, api: Host, source: str
) -> None:
    for name in ("acme/shop", "acme/tea"):
        bare = fleet.has(name, *([CONFLICT] if name == "acme/tea" else []))
        api.repos[name] = {ANSWERS: git("show", f"HEAD:{ANSWERS}", cwd=bare)}
    said = fleet.upgrades(source=source, code=1)
    assert said == {"acme/shop": "opened", "acme/tea": "conflict"}
    shop = fleet.folder / "acme" / "shop.git"
    assert "RETRIES = 5" in git("show", f"{BRANCH}:app/infra/wiring.py", cwd=shop)
    assert "_commit: v0.2.0" in git("show", f"{BRANCH}:{ANSWERS}", cwd=shop)
    assert git("rev-list", "--count", f"main..{BRANCH}", cwd=shop).strip() == "1"
    (opened,) = api.opened
    assert opened["repo"] == "acme/shop"
    assert BRANCH in opened.values()
    assert "main" in opened.values()
    again = fleet.upgrades(source=source, code=1)
    assert again == {"acme/shop": "done", "acme/tea": "conflict"}
    assert len(api.opened) == 1


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(fleet: Fleet, api: Host) -> None:
    for name in ("acme/a", "acme/b", "acme/c"):
        bare = fleet.has(name)
        api.repos[name] = {ANSWERS: git("show", f"HEAD:{ANSWERS}", cwd=bare)}
    assert set(fleet.upgrades(source="github:acme").values()) == {"opened"}
    state = fleet.person.desk / "rung-fleet.jsonl"
    steps = [json.loads(line) for line in state.read_text().splitlines()]
    kept = [s for s in steps if not s["place"].endswith("c.git")]
    kept = [s for s in kept if not (s["place"].endswith("b.git") and s["step"] != "pushing")]
    state.write_text("".join(json.dumps(step) + "\n" for step in kept))
    api.opened.clear()
    tips = {n: git("rev-parse", BRANCH, cwd=fleet.folder / f"{n}.git") for n in api.repos}
    said = fleet.upgrades(source="github:acme")
    # c was pushed by somebody: its branch is theirs.
    assert said == {"acme/a": "done", "acme/b": "opened", "acme/c": "skipped"}
    assert [one["repo"] for one in api.opened] == ["acme/b"]
    assert tips == {n: git("rev-parse", BRANCH, cwd=fleet.folder / f"{n}.git") for n in api.repos}


def test_a_repo_that_refuses_the_branch_is_asked_again_by_the_next_run(
    fleet: Fleet, api: Host
) -> None:
    bare = fleet.has("acme/shop")
    api.repos["acme/shop"] = {ANSWERS: git("show", f"HEAD:{ANSWERS}", cwd=bare)}
    read_only = bare / "hooks" / "pre-receive"
    read_only.parent.mkdir(exist_ok=True)
    read_only.write_text("#!/bin/sh\necho no signature >&2; exit 1\n")
    read_only.chmod(0o755)
    refused = fleet.types(source="github:acme")
    assert refused.stdout == "refused   acme/shop: git push: remote: no signature\n"
    read_only.write_text("#!/bin/sh\nexit 1\n")
    declined = f"! [remote rejected] HEAD -> {BRANCH} (pre-receive hook declined)"
    refused = fleet.types(source="github:acme")
    assert refused.stdout == f"refused   acme/shop: git push: {declined}\n"
    read_only.unlink()
    assert fleet.upgrades(source="github:acme") == {"acme/shop": "opened"}
    state = fleet.person.desk / "rung-fleet.jsonl"
    state.write_text(state.read_text().replace('"done"', '"pushed"'))
    assert fleet.upgrades(source="github:acme") == {"acme/shop": "opened"}
    assert len(api.opened) == 1


def test_a_new_question_is_answered_for_all_but_no_answer_is_changed(fleet: Fleet) -> None:
    shop, tea = fleet.has("shop"), fleet.has("tea", (ANSWERS, "stage: 1", "audit: true\nstage: 1"))
    with (fleet.template / "copier.yml").open("a", encoding="utf-8") as questions:
        questions.write("\naudit:\n  type: bool\n  default: false\n")
    release(fleet.template, "v0.3.0")
    asked = fleet.types("--dry-run")
    refusal = "v0.3.0 has new questions. Add --data audit=…"
    said = [f"refused   shop.git: {refusal}", "merges    tea.git: v0.1.0 to v0.3.0"]
    assert asked.stdout.splitlines() == said
    assert set(fleet.upgrades("--data", "audit=no").values()) == {"pushed"}
    for bare, answer in ((shop, "false"), (tea, "true")):
        assert f"audit: {answer}\n" in git("show", f"rung/upgrade-v0.3.0:{ANSWERS}", cwd=bare)


def test_a_second_tag_of_the_same_commit_gives_no_branch(fleet: Fleet) -> None:
    shop = fleet.has("shop", ("README.md", "Shop", "Our shop"))
    git("tag", "--force", "v0.3.0", "v0.1.0", cwd=fleet.template)
    nothing = "newest    shop.git: Nothing to do: no version is newer than v0.1.0.\n"
    assert fleet.types("--dry-run").stdout == nothing
    assert fleet.types().stdout == nothing
    assert git("branch", "--list", "rung/*", cwd=shop) == ""


def test_a_repo_whose_dependencies_cannot_be_locked_gets_no_branch(fleet: Fleet) -> None:
    shop = fleet.has("shop")
    project = fleet.template / "template" / "pyproject.toml.jinja"
    project.write_text(f"{project.read_text()}# A new version.\n")
    release(fleet.template, "v0.3.0")
    fleet.person.environment["UV"] = "/bin/false"
    done = fleet.types()
    assert done.stdout.startswith("refused   shop.git: Dependencies are not locked (")
    assert git("branch", "--list", "rung/*", cwd=shop) == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_a_kill_finish_the_repos_in_progress_and_start_no_others(
    fleet: Fleet, number: signal.Signals
) -> None:
    at_once = os.cpu_count() or 1
    count = at_once + 3
    stopping = fleet.person.desk / "stopping"
    for service in range(count):
        bare = fleet.has(f"service-{service:02}")
        if service:
            push = bare / "hooks" / "pre-receive"
            push.parent.mkdir(exist_ok=True)
            push.write_text(f"#!/bin/sh\nuntil [ -e '{stopping}' ]; do sleep 0.05; done\n")
            push.chmod(0o755)
    how = f"--template={fleet.template}"
    process = fleet.person.starts("fleet", "upgrade", fleet.folder, how, "--per-minute=6000")
    assert process.stdout
    assert process.stderr
    first = process.stdout.readline()
    os.killpg(process.pid, number)
    while "Stopping after" not in process.stderr.readline():
        assert process.poll() is None
    stopping.touch()
    _, said = process.communicate(timeout=fleet.person.patience)
    assert first.startswith("pushed")
    assert process.returncode == 1
    assert said.endswith("rung: Stopped. Run the same command again to continue.\n")
    assert not list(fleet.person.temporary.glob("rung-fleet-*"))
    again = Counter(fleet.upgrades().values())
    # The worker that pushed the first repo may have started one more.
    assert again["done"] in {at_once, at_once + 1}
    assert again["done"] + again["pushed"] == count


def test_a_repo_without_a_host_gets_only_the_branch(fleet: Fleet) -> None:
    fleet.has("shop")
    assert fleet.upgrades() == {"shop.git": "pushed"}
    assert fleet.upgrades() == {"shop.git": "done"}


def test_a_persons_name_for_remotes_stops_no_upgrade(fleet: Fleet) -> None:
    fleet.has("shop")
    own = fleet.person.desk.parent / "gitconfig"
    own.write_bytes(Path(fleet.person.environment["GIT_CONFIG_GLOBAL"]).read_bytes())
    git("config", "--file", str(own), "clone.defaultRemoteName", "upstream", cwd=fleet.folder)
    fleet.person.environment["GIT_CONFIG_GLOBAL"] = str(own)
    assert fleet.upgrades() == {"shop.git": "pushed"}


BAD = {
    "no source": ([], "There is no source"),
    "no such version": (["--ref", "v9"], "--ref v9 is not a version of the template"),
    "no pace": (["--per-minute", "0"], "--per-minute"),
    "a broken state": (["--state", "broken"], "The state file broken cannot be used"),
    "a deep state": (["--state", "deep"], "The state file deep cannot be used"),
}


@pytest.mark.parametrize("row", BAD)
def test_a_wrong_command_line_is_one_line_and_exit_2(fleet: Fleet, row: str) -> None:
    words, said = BAD[row]
    (fleet.person.desk / "broken").write_text("{\n")
    (fleet.person.desk / "deep").write_text("[" * 100_000)
    with fleet.person.leaving_no_trace():
        done = fleet.types(*words, source=None if words else "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


EDITS = (
    ("app/infra/wiring.py", "WAIT_SECONDS = 5", "WAIT_SECONDS = 7"),
    ("app/infra/simple.py", "PLAIN = True", "PLAIN = False"),
    ("README.md", "Shop", "Our shop"),
    ("pyproject.toml", "[project]", "# Ours.\n[project]"),
    ("deploy/compose.yaml", "image: shop", "image: registry.example/shop"),
    CONFLICT,
)


def test_of_many_repos_with_edits_only_those_in_the_same_lines_conflict(fleet: Fleet) -> None:
    """FLEET_SIZE=200 measures more of them."""
    count = int(os.environ.get("FLEET_SIZE", "8"))
    fleet.person.patience = 60 + 10 * count
    chance = random.Random(17)  # noqa: S311 - the same edits in each run
    expected = Counter[str]()
    for number in range(count):
        edits = chance.sample(EDITS[:-1], chance.randint(1, 4))
        edits += [CONFLICT] if chance.random() < 0.1 else []
        fleet.has(f"service-{number:03}", *edits)
        expected["conflict" if CONFLICT in edits else "pushed"] += 1
    said = fleet.upgrades(code=1 if expected["conflict"] else 0)
    assert Counter(said.values()) == expected
