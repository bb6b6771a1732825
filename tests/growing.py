"""A template of two stages, small enough to be rendered in a moment: each kind of change once."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml
from people import Person, git

MARK = "# Rung's file: advancing to another stage may change it.\n"

TWIN = """\
    image: shop
    restart: always
    read_only: true
    user: app
    init: true
"""

FILES = {
    "app/infra/wiring.py.jinja": f'''{MARK}
"""What this service has, in start order."""

PARTS = [
    "logs",
    "database",
{{%- if stage >= 2 %}}
    "slow queries",
{{%- endif %}}
]

WAIT_SECONDS = 5

RETRIES = 3
''',
    "app/infra/simple.py": f"{MARK}\nSIMPLE = True\nPLAIN = True\n",
    "app/infra/slow_queries.py": f"{MARK}\nSLOW_MS = 200\n",
    "dev/replica.py": f"{MARK}\nREPLICAS = 1\n",
    "deploy/proxy.tf": f"{MARK}\n",
    "deploy/compose.yaml.jinja": f"""{MARK}
services:
  web:
{TWIN}  worker:
{TWIN}  scheduler:
{TWIN}{{% if stage >= 2 %}}    cpus: 2
{{% endif %}}""",
    "docs/stage.md.jinja": (
        "<!-- Rung's file: advancing to another stage may change it. -->\n# Stage {{ stage }}\n"
    ),
    "docs/runbooks/to-stage-2.md": (
        "<!-- Rung's file: advancing to another stage may change it. -->\n# To stage 2\n"
    ),
}

EXCLUDES = """\
  - "{% if stage > 1 %}app/infra/simple.py{% endif %}"
  - "{% if stage < 2 %}app/infra/slow_queries.py{% endif %}"
  - "{% if stage < 2 %}docs/runbooks{% endif %}"
  - "{% if not replica_routing %}dev/replica.py{% endif %}"
  - "{% if stage < 2 or pooler | default('') != 'rds_proxy' %}deploy/proxy.tf{% endif %}"
"""

ADDED = ["app/infra/slow_queries.py", "docs/runbooks/to-stage-2.md"]
CHANGED = [
    ".copier-answers.yml",
    "app/infra/wiring.py",
    "deploy/compose.yaml",
    "docs/stage.md",
    "pyproject.toml",
]
DELETED = ["app/infra/simple.py"]

STATUS = [
    *(
        line
        for _, line in sorted(
            [(name, f" D {name}") for name in DELETED] + [(name, f" M {name}") for name in CHANGED]
        )
    ),
    *(f"?? {name}" for name in ADDED),
]


def grow(template: Path) -> None:
    """Lay these files into a copy of the small template."""
    for name, content in FILES.items():
        write(template / "template" / name, content)
    questions = (template / "copier.yml").read_text()
    excludes, rest = questions.split("\n\nproject_name:", 1)
    excludes = "\n".join(line for line in excludes.splitlines() if "{%" not in line)
    with (template / "template" / "pyproject.toml.jinja").open("a") as project:
        project.write("{% if stage >= 2 %}# What stage 2 needs.\n{% endif %}")
    write(template / "copier.yml", f"{excludes}\n{EXCLUDES}\nproject_name:{rest}")


def release(template: Path, version: str) -> None:
    git("add", "--all", "--force", cwd=template)
    git("commit", "--quiet", f"--message={version}", cwd=template)
    git("tag", version, cwd=template)


def write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


@dataclass
class Repo:
    """A project in git, and the person who works on it."""

    person: Person
    folder: Path

    def rung(self, *words: str | Path) -> CompletedProcess[str]:
        return self.person.types(*words, at=self.folder)

    def advances(self, *words: str | Path) -> str:
        """Runs `rung advance --yes`, which must succeed; returns its output."""
        done = self.rung("advance", "--yes", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refuses(self, *words: str | Path, code: int = 1) -> str:
        """`rung` with these words, refused with nothing touched; answers with the reason."""
        with self.person.leaving_no_trace():
            done = self.rung(*words)
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stderr.startswith("rung: "), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def undoes(self, said: str, *, at: Path | None = None) -> None:
        """The undo that the last step named, typed as it was printed."""
        rung, *words = shlex.split(said.split("Undo it with:\n")[1])
        assert rung == "rung"
        done = self.person.types(*words, at=at or self.folder)
        assert (done.returncode, done.stderr) == (0, "")

    def git(self, *words: str) -> str:
        return git(*words, cwd=self.folder)

    def write(self, name: str, content: str) -> None:
        write(self.folder / name, content)

    def commit(self, message: str = "Our own") -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")

    def edits(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))
        self.commit()

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def status(self) -> list[str]:
        return self.git("status", "--porcelain", "--untracked-files=all").splitlines()

    def answers(self) -> dict[str, Any]:
        recorded = yaml.safe_load(self.text(".copier-answers.yml"))
        assert isinstance(recorded, dict)
        return recorded

    def is_advanced(self) -> bool:
        """True after the whole step, False before it. A state between the two fails."""
        status = [line for line in self.status() if not line.endswith("?? notes.txt")]
        assert status in ([], STATUS), status
        return status == STATUS

    def copied_to(self, folder: Path) -> "Repo":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Repo(self.person, folder)
