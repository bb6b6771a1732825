# Rung's file: advancing to another stage may change it.
"""docs/runbooks/redis_sessions/loss.md, which an operator reads when `/ready` names `sessions`."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from app.infra.failures import Unavailable
from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import Session, SessionSettings
from dev.cache.valkey import Valkey
from tests.infra.redis_sessions.stored_in_redis import StoredInRedis

PAGE = Path("docs/runbooks/redis_sessions/loss.md").read_text("utf-8")
NOTHING_IS_LOST = PAGE.partition("## 1.")[0]


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG SET maxmemory 1mb",
        "CONFIG SET maxclients 1",
        "CONFIG SET requirepass another",
        "REPLICAOF 127.0.0.1 1",
    ],
)
async def test_the_page_has_each_refusal_of_a_server_that_has_lost_nothing(
    server: Valkey, command: str
) -> None:
    redis = StoredInRedis().client
    redis.execute_command(*command.split())  # type: ignore[no-untyped-call]
    sessions = RedisSessions(server.url, 5, SessionSettings())
    now = datetime.now(UTC)
    with pytest.raises(Unavailable) as refused:
        await sessions.keep(b"hash", Session(uuid4(), now, now + timedelta(days=1)))
    await sessions.aclose()

    reasons = re.findall(r"(?m)^\| (`.*?) \|", NOTHING_IS_LOST)
    named = [one for reason in reasons for one in reason.split("`")[1::2]]
    assert [one for one in named if one in str(refused.value)], str(refused.value)
