"""The repo of a team with a module, its advances, and the runbooks of each."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from runbook import Block, the_way, the_way_back

RUNG = Path(__file__).resolve().parents[2]
AUTHOR = ("-c", "user.name=The team", "-c", "user.email=team@example.com")


class JourneyError(Exception):
    """Says which command failed, and how."""


@dataclass(frozen=True)
class Leg:
    stage: int
    pages: tuple[str, ...]
    data: tuple[str, ...] = ()


LEGS = (
    Leg(2, ("to-stage-2.md", "replicas/add-a-replica.md"), ("replica_routing=true",)),
    Leg(3, ("to-stage-3.md",)),
    Leg(4, ("to-stage-4.md",)),
)


def template_of(folder: Path) -> Path:
    """The working tree as a template, committed and tagged."""
    listed = run(RUNG, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        if name and (RUNG / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(RUNG / name, folder / name)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "The template")
    run(folder, "git", "tag", "v0.1.0")
    return folder


def new_repo(repo: Path, template: Path) -> None:
    """At stage 1, with a module that a team added."""
    rung(repo.parent, "new", repo.name, "--defaults", "--template", str(template))
    run(repo, "make", "module", "NAME=reviews")
    commit(repo, "Reviews")


def advance(repo: Path, leg: Leg) -> str:
    """The commit."""
    data = [f"--data={one}" for one in leg.data]
    rung(repo, "advance", "--to", str(leg.stage), "--yes", *data)
    commit(repo, f"Advance to stage {leg.stage}")
    return head(repo)


def head(repo: Path) -> str:
    return run(repo, "git", "rev-parse", "HEAD").strip()


def take(repo: Path, commit: str) -> None:
    """As if the team had merged this advance and nothing after it."""
    run(repo, "git", "reset", "--quiet", "--hard", commit)


def steps(repo: Path, leg: Leg, *, back: bool) -> list[Block]:
    """A page is gone once its advance is reverted, so it is read before."""
    pages = [repo / "docs/runbooks" / page for page in leg.pages]
    return the_way_back(pages) if back else the_way(pages)


def rung(within: Path, *words: str) -> None:
    run(within, str(Path(sys.executable).with_name("rung")), *words)


def commit(repo: Path, message: str) -> None:
    run(repo, "git", "add", "--all")
    run(repo, "git", *AUTHOR, "commit", "--quiet", f"--message={message}")


def run(within: Path, *command: str) -> str:
    environment = {
        name: text
        for name, text in os.environ.items()
        if name not in {"VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    done = subprocess.run(
        command,
        cwd=within,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise JourneyError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
