"""Tests with Debian 13's PgBouncer and HAProxy: Debian 12's are older than those of deploy/."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Render, skip_without
from variants import VARIANTS

# With its own libraries, Debian 13's program runs on an older system too.
PROGRAM = """#!/bin/sh
cd {root}/usr/lib/*-linux-gnu
exec ./ld-linux-*.so.* --library-path . {root}/usr/sbin/{name} "$@"
"""

TESTS = [
    *(f"tests/infra/pooling/test_{name}.py" for name in ("pooling", "failover", "doctor")),
    "tests/infra/copies/test_stack.py",
]


@pytest.fixture
def folder_of_servers() -> Iterator[Path]:
    skip_without("mmdebstrap")
    # Not in pytest's folder: PgBouncer runs as a user who may not enter it.
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        root = folder / "root"
        # Chrootless: the files belong to this user, who deletes them. No package runs its scripts.
        mode = ("--quiet", "--mode=chrootless", "--skip=check/chrootless", "--variant=extract")
        packages = ("--include=pgbouncer,haproxy", "trixie")
        subprocess.run(["mmdebstrap", *mode, *packages, root], check=True)
        for name in ("pgbouncer", "haproxy"):
            program = folder / name
            program.write_text(PROGRAM.format(root=root, name=name))
            program.chmod(0o755)
        yield folder


@pytest.mark.slow
def test_a_project_works_with_newer_servers(
    render: Render, tmp_path: Path, folder_of_servers: Path
) -> None:
    project = shutil.copytree(render(VARIANTS[-1]), tmp_path / "shop")
    environment = {**os.environ, "PATH": f"{folder_of_servers}:{os.environ['PATH']}"}
    run = ["sh", "dev/uv", "run", "--quiet"]
    code = "from dev.pooling import pgbouncer; assert pgbouncer.keeps_statements()"
    subprocess.run([*run, "python", "-c", code], cwd=project, env=environment, check=True)

    done = subprocess.run(
        [*run, "pytest", "-q", "-n", "2", "-m", "slow or not slow", *TESTS],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-10_000:]
    assert "skipped" not in done.stdout
