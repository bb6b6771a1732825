"""A release: ready or refused, and the same bytes on each machine."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from conftest import REPO
from people import Person, git

WORKFLOW = REPO / ".github" / "workflows" / "release.yml"


def test_the_workflow_is_sound() -> None:
    for linter in (["actionlint"], ["zizmor", "--offline", "--quiet"]):
        subprocess.run([*linter, str(WORKFLOW)], check=True)


def ready(template: Path, folder: Path) -> Path:
    """A clone whose version is 0.1.0, in the changelog too."""
    git("clone", "--quiet", str(template), str(folder), cwd=template)
    changes = folder / "CHANGELOG.md"
    text = changes.read_text().replace("## Unreleased", "## 0.1.0 (2026-12-01)")
    changes.write_text(text)
    git("commit", "--quiet", "--all", "--message=Release", cwd=folder)
    return folder


@pytest.mark.slow
def test_two_machines_build_the_same_bytes(person: Person, template: Path, tmp_path: Path) -> None:
    person.environment.pop("UV")
    person.patience = 300
    source = ready(template, tmp_path / "source")
    hashes = []
    for name, umask in {"one": "022", "another/place": "077"}.items():
        clone = tmp_path / name
        release = f"umask {umask} && git clone --quiet {source} {clone} && cd {clone}"
        done = person.runs("sh", "-c", f"{release} && bash .ci/release v0.1.0")
        assert done.returncode == 0, done.stderr
        built = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in clone.glob("dist/r*")}
        assert sorted(built) == ["rung-0.1.0-py3-none-any.whl", "rung-0.1.0.tar.gz"]
        hashes.append(built)
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_tag_that_is_not_ready_is_refused(person: Person, template: Path, tmp_path: Path) -> None:
    clone = ready(template, tmp_path / "rung")

    def refused(tag: str) -> str:
        done = person.runs("bash", ".ci/release", tag, at=clone)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert not (clone / "dist").exists()
        return done.stderr

    assert "is not v0.1.0" in refused("v0.2.0")
    (clone / "notes.txt").write_text("")
    assert "has changes" in refused("v0.1.0")
    (clone / "notes.txt").unlink()
    git("revert", "--no-edit", "HEAD", cwd=clone)
    assert "CHANGELOG.md has no" in refused("v0.1.0")
