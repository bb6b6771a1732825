"""Through a PgBouncer that keeps prepared statements. Debian 12 has an older one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Render, skip_without
from variants import OPTIONS, at

# Debian 13 runs on its own libraries, so its program works on an older system too.
PROGRAM = """#!/bin/sh
cd {root}/usr/lib/*-linux-gnu
exec ./ld-linux-*.so.* --library-path . ../../sbin/pgbouncer "$@"
"""


@pytest.fixture
def folder_with_pgbouncer() -> Iterator[Path]:
    skip_without("mmdebstrap")
    # Not in pytest's folder: PgBouncer runs as a user who may not enter it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "root"
        extract = ("--quiet", "--variant=extract", "--include=pgbouncer")
        subprocess.run(["mmdebstrap", *extract, "trixie", root], check=True)
        program = folder / "pgbouncer"
        program.write_text(PROGRAM.format(root=root))
        program.chmod(0o755)
        yield folder


@pytest.mark.slow
def test_a_project_works_through_it_with_a_cache_of_statements(
    render: Render, tmp_path: Path, folder_with_pgbouncer: Path
) -> None:
    project = shutil.copytree(render(at(2, OPTIONS)), tmp_path / "shop")
    environment = {**os.environ, "PATH": f"{folder_with_pgbouncer}:{os.environ['PATH']}"}
    code = "from dev.pooling import pgbouncer; assert pgbouncer.keeps_statements()"
    run = ["sh", "dev/uv", "run", "--quiet"]
    subprocess.run([*run, "python", "-c", code], cwd=project, env=environment, check=True)

    tests = [f"tests/infra/pooling/test_{name}.py" for name in ("pooling", "failover", "doctor")]
    done = subprocess.run(
        [*run, "pytest", "-q", "-n", "2", "-m", "slow or not slow", *tests],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-10_000:]
    assert "skipped" not in done.stdout
