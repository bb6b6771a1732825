# Rung's file: advancing to another stage may change it.
"""The replicas: how far each is behind, and which of them are in rotation."""

import asyncio
import hashlib
import math
from contextlib import closing, suppress
from datetime import timedelta
from typing import Annotated, Self

import asyncpg
import structlog
from pydantic import BeforeValidator, ByteSize, PositiveFloat, PostgresDsn
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.infra.connections import DatabaseSettings, connect, reading_pool
from app.infra.database import close_in_time
from app.infra.failures import Unavailable
from app.infra.own_writes.client import REMEMBERED, Client
from app.infra.own_writes.log_position import WHAT_IS_FLUSHED, PrimaryLog, written_up_to
from app.infra.postgres_url import PostgresUrl

log = structlog.get_logger()

# Only roles with pg_read_all_stats see received_tli. For others the timeline is that of the last
# restartpoint, so that a replica is back up to checkpoint_timeout after a failover.
WHERE_THE_REPLICA_IS = """
    SELECT
        pg_is_in_recovery() AS is_replica,
        (pg_last_wal_replay_lsn() - '0/0')::bigint AS lsn,
        coalesce(
            (SELECT received_tli FROM pg_stat_wal_receiver),
            (SELECT timeline_id FROM pg_control_checkpoint())
        ) AS timeline_id
"""

# A server that has not answered for so long gets no reads, and those that it has go elsewhere.
SILENCE_SECONDS = 1.0

# While somebody waits for a replica: as a rule it catches up within 3 ms.
HURRIED_POLL_SECONDS = 0.002


def _by_commas(given: object) -> object:
    return [part for part in given.split(",") if part] if isinstance(given, str) else given


class ReplicaSettings(BaseSettings):
    """Without a URL every read goes to the primary.

    Each process opens up to DATABASE_READ_POOL connections to each replica, and to the primary and
    each replica one more, over which it asks how far they are.
    """

    model_config = SettingsConfigDict(env_prefix="DATABASE_REPLICA_")

    # false: positions are noted already, and every read goes to the primary. Needed while some
    # copies of the app do not know the replicas yet.
    reads: bool = True
    urls: Annotated[list[PostgresUrl], NoDecode, BeforeValidator(_by_commas)] = []
    poll_seconds: PositiveFloat = 0.2
    max_lag_seconds: PositiveFloat = 5
    max_lag_bytes: ByteSize = ByteSize(8 * 1024 * 1024)
    wait_seconds: PositiveFloat = 0.05


class Line:
    """A connection for questions to one server, made anew when it is lost."""

    def __init__(self, database: DatabaseSettings, url: PostgresDsn) -> None:
        self._database = database
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def ask(self, question: str) -> asyncpg.Record | None:
        """None if the answer does not come in time."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                if self._connection is None:
                    self._connection = await connect(self._database, self._url, read_only=True)
                return await self._connection.fetchrow(question)
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.debug("no answer", server=_name(self._url), reason=repr(error))
            self.close()
            return None

    def close(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None


class Replica:
    """One standby server, and how far it was when it was last asked."""

    pool: asyncpg.Pool

    def __init__(self, url: PostgresDsn) -> None:
        self.url = url
        self.name = _name(url)
        self.lsn = 0
        self.seconds_behind = math.inf
        self.is_in_rotation: bool | None = None  # before it was first judged
        self.reads = 0
        self._asked_for = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def ask_soon(self) -> None:
        self._asked_for.set()

    async def reaches(self, lsn: int, within: float) -> bool:
        """Everybody who waits shares one question to the server."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (lsn, reached)
        self._waiting.append(waiting)
        self.ask_soon()
        try:
            async with asyncio.timeout(within):
                await reached
        except TimeoutError:
            return False
        finally:
            self._waiting.remove(waiting)
        return True

    def has_replayed(self, lsn: int) -> None:
        self.lsn = lsn
        for wanted, reached in self._waiting:
            if lsn >= wanted and not reached.done():
                reached.set_result(None)

    async def until_next_question(self, poll_seconds: float) -> None:
        if self._waiting:
            await asyncio.sleep(HURRIED_POLL_SECONDS)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_seconds):
                    await self._asked_for.wait()
        self._asked_for.clear()


class Replicas:
    """Knows how far each replica is, and which of them may answer a read."""

    def __init__(self, database: DatabaseSettings, settings: ReplicaSettings) -> None:
        self._database = database
        self._settings = settings
        self._primary = PrimaryLog()
        self.replicas = [Replica(url) for url in settings.urls]
        self._watches: list[asyncio.Task[None]] = []

    async def choose(
        self, client: Client, max_stale: timedelta | None, besides: Replica | None
    ) -> Replica | None:
        """None: the primary is to answer."""
        able = [one for one in self.replicas if one is not besides and _may_serve(one, max_stale)]
        if not able:
            return None
        # The same one for all reads of a client, so that time does not run backwards for it.
        usual = able[0] if len(able) == 1 else max(able, key=lambda one: _affinity(one, client))
        min_position = client.min_position if client.is_resolved else await client.resolve()
        if min_position is None:
            return usual
        lsn = self._primary.lsn_to_reach(min_position)
        if lsn is None:
            return None
        for replica in (usual, *able):
            if replica.lsn >= lsn:
                return replica
        # Waiting for one that is far behind would only add to the answer's time.
        is_close = usual.seconds_behind < 2 * self._settings.poll_seconds
        if is_close and await usual.reaches(lsn, self._settings.wait_seconds):
            return usual
        return None

    async def __aenter__(self) -> Self:
        for replica in self.replicas:
            replica.pool = await reading_pool(self._database, replica.url)
        watches = [self._watch_primary(), *map(self._watch, self.replicas)]
        self._watches = [asyncio.create_task(watch) for watch in watches]
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(close_in_time(replica.pool.close()) for replica in self.replicas))

    async def _watch_primary(self) -> None:
        with closing(Line(self._database, self._database.read_url)) as line:
            while True:
                if answer := await line.ask(WHAT_IS_FLUSHED):
                    self._primary.learn(written_up_to(answer["timeline_id"], answer["lsn"]))
                await asyncio.sleep(self._settings.poll_seconds)

    async def _watch(self, replica: Replica) -> None:
        with closing(Line(self._database, replica.url)) as line:
            while True:
                answer = await line.ask(WHERE_THE_REPLICA_IS)
                if answer is None:
                    # What it still owes an answer ends as a lost connection and is asked elsewhere.
                    replica.pool.terminate()
                    replica.pool = await reading_pool(self._database, replica.url)
                self._judge(replica, answer)
                await replica.until_next_question(self._settings.poll_seconds)

    def _judge(self, replica: Replica, answer: asyncpg.Record | None) -> None:
        if not self._primary.timeline:
            return  # The primary has not said yet what to compare it with.
        reason = self._why_not_at_all(answer)
        if answer is None or reason:
            replica.seconds_behind = math.inf
        else:
            replica.has_replayed(answer["lsn"])
            replica.seconds_behind = self._primary.seconds_behind(answer["lsn"])
            reason = self._why_too_far_behind(replica)
        if reason and replica.is_in_rotation is not False:
            log.warning("a replica is out of rotation", replica=replica.name, reason=reason)
        elif not reason and not replica.is_in_rotation:
            log.info("a replica is in rotation", replica=replica.name)
        replica.is_in_rotation = not reason

    def _why_not_at_all(self, answer: asyncpg.Record | None) -> str | None:
        if answer is None:
            return "it does not answer"
        if not answer["is_replica"]:
            return "it is not a replica, or no longer"
        if answer["timeline_id"] != self._primary.timeline:
            timelines = f"{answer['timeline_id']}, the primary {self._primary.timeline}"
            return f"it follows timeline {timelines}"
        return None

    def _why_too_far_behind(self, replica: Replica) -> str | None:
        if replica.seconds_behind > self._settings.max_lag_seconds:
            return f"it is {replica.seconds_behind:.1f} s behind"
        behind = ByteSize(self._primary.bytes_behind(replica.lsn))
        if behind > self._settings.max_lag_bytes:
            return f"it is {behind.human_readable()} behind"
        return None


def _may_serve(replica: Replica, max_stale: timedelta | None) -> bool:
    if max_stale is None:
        return bool(replica.is_in_rotation)
    # No further back than clients remember their own writes.
    return replica.seconds_behind <= min(max_stale, REMEMBERED).total_seconds()


def _affinity(replica: Replica, client: Client) -> bytes:
    # Rendezvous hashing: when a replica goes, only its own clients move.
    return hashlib.blake2b(f"{replica.name} {client.affinity}".encode(), digest_size=8).digest()


def _name(url: PostgresDsn) -> str:
    return ",".join(f"{host['host']}:{host['port'] or 5432}" for host in url.hosts())
