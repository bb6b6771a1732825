"""The generated repo's packages, on the processors that a cloud offers."""

import subprocess

import pytest
from conftest import Render
from variants import LONGEST


@pytest.mark.slow
def test_every_package_has_a_wheel_for_64_bit_arm(render: Render) -> None:
    """So the image can run on Graviton, which costs less."""
    only = ("--only-binary", ":all:", "--python-platform", "aarch64-unknown-linux-gnu")
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", *only, "--group", "infra", "pyproject.toml"],
        cwd=render(LONGEST[-1]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("argon2-cffi-bindings", "asyncpg", "botocore", "httptools", "uvloop"):
        assert f"\n{name}==" in done.stdout
