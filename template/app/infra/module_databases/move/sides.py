# Rung's file: advancing to another stage may change it.
"""The two databases of a move, and what the move leaves in them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

CONNECT_SECONDS = 10.0
OTHER_COMMAND_SECONDS = 5
SLOT_SECONDS = 60
POLL_SECONDS = 0.001  # writers wait meanwhile

# Rows are compared as text, so both servers must write values in the same way.
SETTINGS = {
    "application_name": "move of a module",
    "statement_timeout": "0",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}

# CREATE SUBSCRIPTION contains a password, which must not be logged. Some roles may not set these.
NOT_LOGGED = """
    SELECT set_config(name, value, true) FROM (VALUES
        ('log_statement', 'none'), ('log_min_duration_statement', '-1'),
        ('log_min_error_statement', 'panic')
    ) AS quiet (name, value) WHERE has_parameter_privilege(name, 'SET')
"""


# For transactions that make the app's transactions wait. The second line ends one whose machine is
# gone. After the time in the third line, Postgres cancels an autovacuum that holds the lock.
PATIENCE = """
    SET LOCAL lock_timeout = '300ms';
    SET LOCAL idle_in_transaction_session_timeout = '5s';
    SELECT set_config('deadlock_timeout', '50ms', true)
    WHERE has_parameter_privilege('deadlock_timeout', 'SET');
"""
TRIES = 20
PAUSE_SECONDS = 0.5


class Refused(Exception):
    """Each line says what is wrong and what to do."""


class TooSlow(Exception):
    """The transaction is rolled back, and the next try may succeed."""


@dataclass(frozen=True)
class Side:
    name: str
    admin_url: str  # without a pooler; the other server connects by it too
    app_url: str
    connection: asyncpg.Connection
    # The revisions that its migrations lead to, if it has migrations.
    heads: frozenset[str] | None = None

    async def value(self, query: str, *values: Any) -> Any:
        return await self.connection.fetchval(query, *values)

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self.connection.fetch(query, *values)
        return found

    async def run(self, statement: str, *values: Any) -> None:
        await self.connection.execute(statement, *values)

    async def run_within(self, seconds: int, statement: str, value: str, refusal: str) -> None:
        """Raises Refused, with that text, when the lock is not free in time."""
        try:
            async with self.connection.transaction():
                await self.run(f"SET LOCAL lock_timeout = '{seconds}s'")
                await self.run(statement, value)
        except asyncpg.LockNotAvailableError:
            raise Refused(refusal) from None

    async def position(self) -> str:
        """A flushed position. A server that has replayed it has all that was committed before."""
        position: str = await self.value(
            "SELECT pg_logical_emit_message(false, 'move', '', true)::text"
        )
        return position


class Slot(NamedTuple):
    is_lost: bool
    bytes_behind: int


@dataclass(frozen=True)
class Way:
    """Replication in one direction. Its publication, slot and subscription have its name."""

    name: str
    tables: tuple[str, ...]
    source: Side
    target: Side

    async def begin(self, *, copy_data: bool) -> None:
        """Continues where a killed command stopped."""
        if not await self.is_published():
            tables = ", ".join(self.tables)
            await self.source.run(f"CREATE PUBLICATION {self.name} FOR TABLE {tables}")
        # The slot comes second: its changes can be sent only with a publication from before them.
        # Creating it waits for each transaction that is open on the source.
        if await self.slot() is None:
            await self.source.run_within(
                SLOT_SECONDS,
                "SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
                self.name,
                f"{self.source.name} has a transaction that is open for more than {SLOT_SECONDS} s:"
                " end it (pg_stat_activity), and run this again.",
            )
        if not await self.is_subscribed():
            url = self.source.admin_url.replace("'", "''")
            async with self.target.connection.transaction():
                await self.target.run(NOT_LOGGED)
                await self.target.run(
                    f"CREATE SUBSCRIPTION {self.name} CONNECTION '{url}' PUBLICATION {self.name}"
                    f" WITH (create_slot = false, slot_name = '{self.name}',"
                    # Changes that the other way has brought are not sent back.
                    f" origin = none, copy_data = {copy_data},"
                    # Otherwise a change counts as replayed only after the WAL writer ran.
                    " synchronous_commit = on)"
                )

    async def end(self) -> None:
        if await self.is_subscribed():
            if await self.slot() is None:  # DROP SUBSCRIPTION would fail without it
                await self.target.run(f"ALTER SUBSCRIPTION {self.name} DISABLE")
                await self.target.run(f"ALTER SUBSCRIPTION {self.name} SET (slot_name = NONE)")
            await self.target.run(f"DROP SUBSCRIPTION {self.name}")  # and its slots
        if await self.slot() is not None:
            await self.source.run("SELECT pg_drop_replication_slot($1)", self.name)
        await self.source.run(f"DROP PUBLICATION IF EXISTS {self.name}")

    async def is_published(self) -> bool:
        return await self.source.value(PUBLISHED, self.name) is not None

    async def is_subscribed(self) -> bool:
        return await self.target.value(SUBSCRIBED, self.name) is not None

    async def slot(self) -> Slot | None:
        found = await self.source.rows(SLOT, self.name)
        return Slot(*found[0]) if found else None

    async def has_replayed(self, position: str) -> bool:
        return await self.source.value(REPLAYED, self.name, position) is True

    async def replays(self, position: str, within: float) -> bool:
        """False if the target has not replayed the position after `within` seconds."""
        deadline = time.monotonic() + within
        while not await self.has_replayed(position):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def catch_up(self) -> None:
        """Waits until the target has what the source has committed by now."""
        position = await self.source.position()
        while not await self.has_replayed(position):
            await self.refuse_if_lost()
            await asyncio.sleep(POLL_SECONDS)

    async def refuse_if_lost(self) -> None:
        slot = await self.slot()
        if slot is None or slot.is_lost:
            raise Refused(
                f"The slot {self.name} of {self.source.name} has lost WAL that {self.target.name}"
                " still needs. Raise max_slot_wal_keep_size, then run abort, and copy again."
            )


PUBLISHED = "SELECT true FROM pg_publication WHERE pubname = $1"
SUBSCRIBED = """
    SELECT true FROM pg_subscription WHERE subname = $1
    AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
SLOT = """
    SELECT wal_status = 'lost',
        greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint
    FROM pg_replication_slots WHERE slot_name = $1
"""
REPLAYED = """
    SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1
"""


@dataclass(frozen=True)
class Move:
    module: str
    tables: tuple[str, ...]
    old: Side
    new: Side

    @property
    def name(self) -> str:
        return f"move_{self.module}"

    @property
    def there(self) -> Way:
        return Way(self.name, self.tables, self.old, self.new)

    @property
    def back(self) -> Way:
        return Way(f"{self.name}_back", self.tables, self.new, self.old)

    async def refuse_another(self) -> None:
        """Raises Refused while another command works on this move. A killed one may take a moment
        until its server notices. The lock ends with the connection."""
        lock = "SELECT pg_advisory_lock(hashtextextended($1, 0))"  # direct
        refusal = f"Another command moves {self.module} right now."
        await self.old.run_within(OTHER_COMMAND_SECONDS, lock, self.name, refusal)


async def patiently[T](side: Side, act: Callable[[], Awaitable[T]]) -> T:
    """Runs `act` in a transaction that blocks the app's only for a moment. Raises Refused."""
    reason = ""
    for _ in range(TRIES):
        try:
            async with side.connection.transaction():
                await side.run(PATIENCE)
                return await act()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, TooSlow) as error:
            reason = str(error)
        await asyncio.sleep(PAUSE_SECONDS)
    raise Refused(
        f"{side.name} was busy in each of {TRIES} tries ({reason}), so nothing has changed. Look"
        " for long transactions in its pg_stat_activity, and run this again."
    )


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, server_settings=SETTINGS, statement_cache_size=0
    )
    try:
        yield connection
    finally:
        with suppress(TimeoutError):  # a server that hangs must not keep the command from ending
            await connection.close(timeout=CONNECT_SECONDS)
