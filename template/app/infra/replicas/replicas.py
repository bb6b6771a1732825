# Rung's file: advancing to another stage may change it.
"""Replicas of Postgres: the position of each, and which of them may answer a read."""

import asyncio
import hashlib
import math
from contextlib import closing, suppress
from datetime import timedelta
from typing import Self

import asyncpg
import structlog
from pydantic import ByteSize, PostgresDsn
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra.connections import DatabaseSettings, close_in_time, connect, reading_pool
from app.infra.environment import Seconds
from app.infra.failures import POSTGRES_FAILS, Unavailable, reason_of
from app.infra.own_writes.client import REMEMBERED, Client
from app.infra.own_writes.log_position import FLUSHED_UP_TO, MAIN, Position, PrimaryLog, reachable
from app.infra.pooling.connections import PostgresUrls, server_name
from app.infra.read_pool import ReadPool

log = structlog.get_logger()

# Only roles with pg_read_all_stats see received_tli. Others see the timeline of the last
# restartpoint, so after a failover a replica stays out of rotation for up to checkpoint_timeout.
WHERE_THE_REPLICA_IS = """
    SELECT
        pg_is_in_recovery() AS is_replica,
        (pg_last_wal_replay_lsn() - '0/0')::bigint AS lsn,
        coalesce(
            (SELECT received_tli FROM pg_stat_wal_receiver),
            (SELECT timeline_id FROM pg_control_checkpoint())
        ) AS timeline_id,
        coalesce(
            extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'Infinity'
        )::float AS last_commit
"""

# A server that does not answer for this long gets no reads. Its running reads go to another server.
SILENCE_SECONDS = 1.0

# The pause while a read waits for a replica, which usually catches up within 3 ms.
HURRIED_POLL_SECONDS = 0.002


class ReplicaSettings(BaseSettings):
    """Without a URL every read goes to the primary.

    Each process opens up to DATABASE_READ_POOL connections to each replica. It opens one more to
    each replica and to the primary, to ask for their positions.
    """

    model_config = SettingsConfigDict(env_prefix="DATABASE_REPLICA_")

    # false: positions are noted already, and every read goes to the primary. Use it while some
    # copies of the app do not know the replicas yet.
    reads: bool = True
    urls: PostgresUrls = []
    direct_urls: PostgresUrls = []  # for the doctor, whose session does not pass through a pooler
    poll_seconds: Seconds = 0.2
    max_lag_seconds: Seconds = 5
    max_lag_bytes: ByteSize = ByteSize(8 * 1024 * 1024)
    wait_seconds: Seconds = 0.05


class StatusConnection:
    """A connection that asks one server for its position. Reconnects when it is lost."""

    def __init__(self, database: DatabaseSettings, url: PostgresDsn) -> None:
        self._database = database
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self.failure = ""  # of the last question

    async def ask(self, question: str) -> asyncpg.Record | None:
        """None if the answer does not come in time."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                if self._connection is None:
                    self._connection = await connect(self._database, self._url, read_only=True)
                return await self._connection.fetchrow(question)
        except (Unavailable, *POSTGRES_FAILS) as error:
            self.failure = reason_of(error)
            log.debug("no answer", server=server_name(self._url), reason=repr(error))
            self.close()
            return None

    def close(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None


class Replica:
    pool: ReadPool

    def __init__(self, url: PostgresDsn) -> None:
        self.url = url
        # With its database, because behind one pooler two replicas have one address.
        self.name = f"{server_name(url)}{url.path or ''}"
        self.lsn = 0
        self.seconds_behind = math.inf
        self.is_in_rotation: bool | None = None  # before the first answer
        self.reads = 0
        self._poll_requested = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def poll_soon(self) -> None:
        self._poll_requested.set()

    async def reaches(self, lsn: int, within: float) -> bool:
        """All waiting reads share one query to the server."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (lsn, reached)
        self._waiting.append(waiting)
        self.poll_soon()
        try:
            async with asyncio.timeout(within):
                await reached
        except TimeoutError:
            return False
        finally:
            self._waiting.remove(waiting)
        return True

    def note_replayed(self, lsn: int) -> None:
        self.lsn = lsn
        for wanted, reached in self._waiting:
            if lsn >= wanted and not reached.done():
                reached.set_result(None)

    def forget_position(self) -> None:
        """The replica follows an older timeline. After an upgrade of Postgres it may be another
        server, whose greater position proves nothing."""
        self.lsn, self.seconds_behind, self.is_in_rotation = 0, math.inf, None
        self.poll_soon()

    async def wait_for_next_poll(self, poll_seconds: float) -> None:
        if self._waiting:
            await asyncio.sleep(HURRIED_POLL_SECONDS)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_seconds):
                    await self._poll_requested.wait()
        self._poll_requested.clear()


class Replicas:
    def __init__(
        self, database: DatabaseSettings, settings: ReplicaSettings, name: str = MAIN
    ) -> None:
        self._database = database
        self._settings = settings
        self._database_name = name  # as positions call it
        self._primary = PrimaryLog()
        self._primary_answers = True
        self.replicas = [Replica(url) for url in settings.urls]
        self._watches: list[asyncio.Task[None]] = []

    async def choose(
        self, client: Client, max_stale: timedelta | None, besides: Replica | None
    ) -> Replica | None:
        """None if the primary must answer."""
        able = [one for one in self.replicas if one is not besides and _may_serve(one, max_stale)]
        if not able:
            return None
        # One replica for all reads of a client, so that it never sees older data than before.
        usual = able[0] if len(able) == 1 else max(able, key=lambda one: _affinity(one, client))
        at = client.at(self._database_name)
        min_position = at.position if at.is_resolved else await client.resolve(at)
        if min_position is None:
            return usual
        lsn = self._primary.lsn_to_reach(min_position)
        if lsn is None:
            return None
        for replica in (usual, *able):
            if replica.lsn >= lsn:
                return replica
        # Waiting for a replica that is far behind would only delay the answer.
        is_close = usual.seconds_behind < 2 * self._settings.poll_seconds
        if is_close and await usual.reaches(lsn, self._settings.wait_seconds):
            return usual
        return None

    def are_needed(self, max_stale: timedelta) -> bool:
        able = (_may_serve(one, max_stale) for one in self.replicas)
        return not self._primary_answers and any(able)

    async def __aenter__(self) -> Self:
        for replica in self.replicas:
            replica.pool = reading_pool(self._database, replica.url)
        watches = [self._watch_primary(), *map(self._watch, self.replicas)]
        self._watches = [asyncio.create_task(watch) for watch in watches]
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(close_in_time(replica.pool.close()) for replica in self.replicas))

    async def _watch_primary(self) -> None:
        with closing(StatusConnection(self._database, self._database.read_url)) as status:
            while True:
                answer = await status.ask(FLUSHED_UP_TO)
                self._primary_answers = answer is not None
                if answer:
                    self.see_primary(reachable(answer["timeline_id"], answer["lsn"]))
                await asyncio.sleep(self._settings.poll_seconds)

    def see_primary(self, position: Position) -> None:
        if position.timeline != self._primary.timeline:
            for replica in self.replicas:
                replica.forget_position()
        self._primary.add_sample(position)

    async def _watch(self, replica: Replica) -> None:
        with closing(StatusConnection(self._database, replica.url)) as status:
            while True:
                answer = await status.ask(WHERE_THE_REPLICA_IS)
                if answer is None:
                    # Its open reads end as lost connections and are asked elsewhere.
                    replica.pool.terminate()
                    replica.pool = reading_pool(self._database, replica.url)
                self._update(replica, answer, status.failure)
                await replica.wait_for_next_poll(self._settings.poll_seconds)

    def _update(self, replica: Replica, answer: asyncpg.Record | None, failure: str) -> None:
        if not self._primary.timeline:
            return  # There is no position of the primary yet to compare with.
        reason = self._reason_to_leave_out(answer, failure)
        if answer is None or reason:
            replica.seconds_behind = math.inf
        else:
            replica.note_replayed(answer["lsn"])
            replica.seconds_behind = self._primary.seconds_behind(
                answer["lsn"], answer["last_commit"]
            )
            reason = self._reason_behind(replica)
        if reason and replica.is_in_rotation is not False:
            log.warning("a replica is out of rotation", replica=replica.name, reason=reason)
        elif not reason and not replica.is_in_rotation:
            log.info("a replica is in rotation", replica=replica.name)
        replica.is_in_rotation = not reason

    def _reason_to_leave_out(self, answer: asyncpg.Record | None, failure: str) -> str | None:
        if answer is None:
            return f"it does not answer: {failure}"
        if not answer["is_replica"]:
            return "it is not a replica, or no longer"
        if answer["timeline_id"] != self._primary.timeline:
            timelines = f"{answer['timeline_id']}, the primary {self._primary.timeline}"
            return f"it follows timeline {timelines}"
        return None

    def _reason_behind(self, replica: Replica) -> str | None:
        if replica.seconds_behind > self._settings.max_lag_seconds:
            return f"it is {replica.seconds_behind:.1f} s behind"
        behind = ByteSize(self._primary.bytes_behind(replica.lsn))
        if behind > self._settings.max_lag_bytes:
            return f"it is {behind.human_readable()} behind"
        return None


def _may_serve(replica: Replica, max_stale: timedelta | None) -> bool:
    if max_stale is None:
        return bool(replica.is_in_rotation)
    # Clients remember their own writes for this time only.
    return replica.seconds_behind <= min(max_stale, REMEMBERED).total_seconds()


def _affinity(replica: Replica, client: Client) -> bytes:
    # Rendezvous hashing: when a replica goes, only its own clients move.
    return hashlib.blake2b(f"{replica.name} {client.affinity}".encode(), digest_size=8).digest()
