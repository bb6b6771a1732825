"""docs/golden-path.md, done: a company forks Rung, owns it, and its fleet follows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from growing import MARK, Repo, release, write
from people import COPIER, Person, git

pytestmark = pytest.mark.slow

QUESTIONS = """
region:
  type: str
  default: us-east-1
  help: In which region does it run?

audit:
  type: bool
  default: false
  help: Should it keep an audit trail?
"""

AUDIT = f'''{MARK}"""Says who did what."""


def entry(who: str, what: str) -> dict[str, str]:
    return {{"who": who, "what": what}}
'''

AUDIT_TEST = f'''{MARK}"""The audit trail."""

from app.infra.audit.trail import entry


def test_an_entry_says_who_did_what() -> None:
    assert entry("ada", "paid") == {{"who": "ada", "what": "paid"}}
'''


@pytest.fixture
def platform(person: Person, template: Path, tmp_path: Path) -> Path:
    """The fork on the company's server, at v1.0.0."""
    fork = tmp_path / "work" / "acme-backend"
    git("clone", "--quiet", str(template), str(fork), cwd=tmp_path)
    edit(fork / "copier.yml", "  default: Shop\n", "  default: Service\n")
    edit(fork / "copier.yml", "\nproject_name:", "\n# Acme's.\nproject_name:")
    with (fork / "copier.yml").open("a") as questions:
        questions.write(QUESTIONS)
    edit(
        fork / "copier.yml",
        "  # A wing:",
        '  - "{% if not audit | default(false) %}audit{% endif %}"\n  # A wing:',
    )
    write(fork / "template/app/infra/audit/__init__.py", f'{MARK}"""The audit trail."""\n')
    write(fork / "template/app/infra/audit/trail.py", AUDIT)
    write(fork / "template/tests/infra/audit/__init__.py", f'{MARK}"""The audit trail."""\n')
    write(fork / "template/tests/infra/audit/test_trail.py", AUDIT_TEST)
    write(fork / "template/deploy/region.env.jinja", f"{MARK}REGION={{{{ region }}}}\n")
    edit(fork / "template/app/seed.py", "Last season's tray", "Last season's anvil")
    edit(fork / "template/README.md.jinja", "## Run it", "Questions: #platform.\n\n## Run it")
    defaults = "team: group:default/platform\nregion: eu-west-1\n"
    write(fork / "generator/rung/defaults.yml", defaults)
    release(fork, "v1.0.0")
    server = tmp_path / "server" / "acme-backend.git"
    git("clone", "--quiet", "--bare", str(fork), str(server), cwd=tmp_path)
    git("remote", "set-url", "origin", str(server), cwd=fork)
    return fork


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, (file, old)
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture
def install(person: Person, tmp_path: Path) -> Callable[[], Path]:
    """Installs rung from the URL of the fork, as people do."""
    tools = tmp_path / "tools"
    url = f"git+{(tmp_path / 'server' / 'acme-backend.git').as_uri()}"
    environment = {
        **os.environ,
        "UV_TOOL_DIR": str(tools),
        "UV_TOOL_BIN_DIR": str(tools / "bin"),
    }

    def installed() -> Path:
        command = [
            "uv",
            "tool",
            "install",
            "--quiet",
            f"--python={sys.executable}",
            "--reinstall-package=rung",
            url,
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        person.environment.pop("RUNG_TEMPLATE", None)
        person.patience = 120
        return tools / "bin" / "rung"

    return installed


AUDITED = ["--data", "audit=true"]
SERVICES: dict[str, list[str]] = {
    "shop": [],
    "tea": AUDITED,
    "cafe": ["--data", "region=eu-central-1"],
    "rota": ["--stage", "2"],
    "news": ["--stage", "2", *AUDITED],
    "blog": ["--stage", "2", "--data", "replica_routing=true"],
    "maps": ["--stage", "3", *AUDITED],
    "chat": ["--stage", "3", "--data", "replica_routing=true"],
    "mail": ["--stage", "4"],
    "pay": ["--stage", "4", "--data", "replica_routing=true", *AUDITED],
}
REGIONS = dict.fromkeys(SERVICES, "eu-west-1") | {"cafe": "eu-central-1"}
BOTS = ("shop", "blog", "maps", "pay")
ADVANCED = ("tea", "rota", "chat")


def test_a_company_owns_a_fork_and_upgrades_its_fleet_from_it(
    person: Person, platform: Path, install: Callable[[], Path], tmp_path: Path
) -> None:
    rung = install()
    fleet = person.desk / "fleet"
    fleet.mkdir()

    def types(*words: str | Path, code: int = 0, at: Path | None = None) -> str:
        done = person.runs(rung, *words, at=at)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    for name, words in SERVICES.items():
        types("new", fleet / name, "--defaults", *words)
    repos = {name: Repo(person, fleet / name) for name in SERVICES}
    for name, repo in repos.items():
        answers = repo.answers()
        assert (answers["team"], answers["region"]) == ("group:default/platform", REGIONS[name])
        assert answers["_commit"] == "v1.0.0"
        assert (repo.folder / "app/infra/audit").is_dir() == answers["audit"], name
        assert repo.text("deploy/region.env") == f"{MARK}REGION={REGIONS[name]}\n"
        repo.edits("README.md", "## Test it", "Pager: ours.\n\n## Test it")
        repo.edits("app/main.py", "\n\n", "\n\n# Ours.\n")

    trail = platform / "template/app/infra/audit/trail.py"
    trail.write_text(AUDIT.replace('"what": what}', '"did": what}'))
    trail_test = platform / "template/tests/infra/audit/test_trail.py"
    trail_test.write_text(AUDIT_TEST.replace('"what": "paid"', '"did": "paid"'))
    edit(platform / "template/deploy/region.env.jinja", "REGION=", "AWS_REGION=")
    release(platform, "v2.0.0")
    git("push", "--quiet", "origin", "main", "v2.0.0", cwd=platform)

    policy = ("fleet", fleet, "--drift", "--max-behind", "0")
    types(*policy, code=1)
    install()
    for name, repo in repos.items():
        if name in BOTS:
            update = (COPIER, "update", "--skip-answered", "--defaults", "--vcs-ref", "v2.0.0")
            done = person.runs(*update, at=repo.folder)
            assert done.returncode == 0, done.stderr
            repo.commit("Upgrade the template")
        else:
            types("upgrade", "--commit", at=repo.folder)
    for name in ADVANCED:
        types("advance", "--yes", "--commit", at=fleet / name)

    rows: list[dict[str, Any]] = json.loads(types(*policy, "--json"))["repos"]
    assert {row["repo"]: row["stage"] for row in rows} == {
        "shop": 1, "tea": 2, "cafe": 1, "rota": 3, "news": 2, "blog": 2,
        "maps": 3, "chat": 4, "mail": 4, "pay": 4,
    }  # fmt: skip
    assert [row["edited"] for row in rows] == [[]] * len(SERVICES)
    for name, repo in repos.items():
        is_green(repo, REGIONS[name])


def is_green(repo: Repo, region: str) -> None:
    """Runs the first checks of `make check`. Other tests run the suites of each stage."""
    assert repo.status() == []
    for command in (
        ["python3", "-m", "dev.lint_conflicts"],
        ["ruff", "check", "--quiet", "--no-cache"],
        ["ruff", "format", "--check", "--quiet", "--no-cache"],
    ):
        done = repo.person.runs(*command, at=repo.folder)
        assert done.returncode == 0, done.stdout + done.stderr
    assert repo.text("deploy/region.env") == f"{MARK}AWS_REGION={region}\n"
    assert "Last season's anvil" in repo.text("app/seed.py")
    assert "Pager: ours." in repo.text("README.md")
    assert "# Ours." in repo.text("app/main.py")
    assert yaml.safe_load(repo.text("catalog-info.yaml"))["spec"]["owner"].endswith("/platform")
    if repo.answers()["audit"]:
        code = "from app.infra.audit.trail import entry; print(entry('ada', 'paid')['did'])"
        assert repo.person.runs("python3", "-c", code, at=repo.folder).stdout == "paid\n"
