# Rung's file: advancing to another stage may change it.
"""Login sessions in Redis or Valkey, on a separate server: deploy/sessions.conf."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import redis
import structlog
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util import await_only

from app.infra.cache.lookups import READS_AND_WRITES_NOTHING, TIMEOUTS, RedisLookups, values_in
from app.infra.failures import Unavailable
from app.infra.own_writes.client import OwnWrites, this_client
from app.infra.own_writes.log_position import ENCODED_IN_LUA, MAIN, NOT_KNOWN, Position, encoded
from app.infra.own_writes.log_position import decoded as decoded_position
from app.infra.redis_sessions.least_position import LeastPosition
from app.infra.session_rows import Session, SessionRows, SessionSettings

log = structlog.get_logger()

# Lookups share connections and writes are rare, so a process needs few.
CONNECTIONS = 8

# During the move, a copy reads Postgres for this long after Redis has failed.
PAUSE_SECONDS = 1.0

# The value in place of a session that has ended (a tombstone).
ENDED = b""

SESSION = "session:"
INDEX = "sessions-of:"

# Stores a session, unless it has ended or a newer version is stored. Returns the stored value.
# The index of a user's sessions lives as long as the last of them.
# pcall: somebody may have stored a value of another type. A session replaces such a value. An index
# does not, so "log out everywhere" fails until somebody repairs the index, and misses no session.
# #!lua: when memory is full, Redis refuses the whole transaction, not just this script's first
# write. Scripts with allow-oom write little, and run then too: somebody can always log out.
KEEP = """#!lua
local session, sessions_of_user = KEYS[1], KEYS[2]
local value, seen_at, ends_at, hash, expires_at, now = unpack(ARGV)
local held = redis.pcall('GET', session)
if held == '' then return held end
local whole = '^[%x-]+ (%d+) ' .. expires_at .. '$'
local held_at = type(held) == 'string' and string.match(held, whole)
if held_at and tonumber(held_at) >= tonumber(seen_at) then return held end
redis.call('SET', session, value, 'PXAT', ends_at)
redis.pcall('ZREMRANGEBYSCORE', sessions_of_user, '-inf', now)
redis.pcall('ZADD', sessions_of_user, expires_at, hash)
redis.call('PEXPIREAT', sessions_of_user, expires_at, 'NX')
redis.call('PEXPIREAT', sessions_of_user, expires_at, 'GT')
return value
"""

# Makes room for one more session of a user, as _delete_surplus of session_rows.py does. It leaves
# no tombstones, so a late write may revive such a session.
DROP_SURPLUS = """#!lua flags=allow-oom
local sessions_of_user, prefix = KEYS[1], KEYS[2]
local most, absolute = tonumber(ARGV[1]), tonumber(ARGV[2])
local hashes = redis.pcall('ZRANGE', sessions_of_user, 0, most + 999)
if #hashes < most then return end
local hex, worth = {}, {}
for byte = 0, 255 do hex[string.char(byte)] = string.format('%02x', byte) end
for _, hash in ipairs(hashes) do
  local key = prefix .. string.gsub(hash, '.', hex)
  local held = redis.pcall('GET', key)
  local seen_at, expires_at = string.match(type(held) == 'string' and held or '', ' (%d+) (%d+)$')
  local used_again = seen_at and expires_at - absolute + 1 < tonumber(seen_at)
  worth[hash] = {tonumber(seen_at or 0) + (used_again and 1e15 or 0), key}
end
table.sort(hashes, function(a, b) return worth[a][1] < worth[b][1] end)
for at = 1, #hashes - most + 1 do
  redis.call('DEL', worth[hashes[at]][2])
  redis.call('ZREM', sessions_of_user, hashes[at])
end
"""

NOTE_POSITION = f"""#!lua flags=allow-oom
local held = redis.pcall('GET', KEYS[1])
local is_position = type(held) == 'string' and string.find(held, '{ENCODED_IN_LUA}')
if is_position and held >= ARGV[1] then return end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""

# A person never ends this many. A program that logs in again and again would fill the memory.
MOST_TOMBSTONES = 1000

# Replaces a session by a tombstone, and removes it from its user's index. The user's oldest
# tombstones go, so a late write may revive such a session.
END = """#!lua flags=allow-oom
local session, index_prefix, session_prefix = KEYS[1], KEYS[2], KEYS[3]
local hash, lifetime, only_held, most = unpack(ARGV)
local held = redis.pcall('GET', session)
if not held and only_held == '1' then return end
redis.call('SET', session, '', 'PX', lifetime)
local user = type(held) == 'string' and string.match(held, '^%S+')
if not user then return end
redis.pcall('ZREM', index_prefix .. user, hash)
local ended = 'ended-' .. index_prefix .. user
local count = redis.pcall('LPUSH', ended, hash)
if type(count) == 'number' and count > tonumber(most) then
  local oldest = string.gsub(redis.call('RPOP', ended), '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end)
  redis.call('DEL', session_prefix .. oldest)
end
redis.pcall('PEXPIRE', ended, lifetime)
"""


# For eval(): a script, the number of its keys, the keys and the other arguments.
type Command = tuple[str, int, *tuple[str | bytes | int, ...]]


class RedisSessions(RedisLookups):
    """An ended session leaves a tombstone, so that a late write of another copy cannot revive it.
    The tombstone lives as long as a last visit would have kept the session alive.

    Starts and ends are sent as the last step before COMMIT. So a session exists before a client
    has its token. A transaction that fails earlier changes nothing. One that Redis does not accept
    is rolled back. If the COMMIT itself fails, no client got the started session, and the ended
    one stays ended. Raises Unavailable.
    """

    name = "the sessions' Redis"
    # A refused connection fails at once. Only timeouts open the circuit breaker, and a single one
    # may be a pause of this process.
    failures_in_a_row = 2
    counted = TIMEOUTS
    # A server that is too old for the scripts above refuses this one too.
    probe = f"#!lua flags=allow-oom\n{READS_AND_WRITES_NOTHING}"

    rows: SessionRows  # a session ends there too: a copy of the step before may read its row

    def __init__(
        self,
        url: str,
        seconds: float,
        settings: SessionSettings,
        least_position: LeastPosition | None = None,
    ) -> None:
        self._settings = settings
        self._least_position = least_position
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=seconds,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            # A restarted server has closed every connection. A new one works.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            redis_connect_func=self._connected,
        )
        super().__init__(Redis.from_pool(pool), seconds, SESSION.rstrip(":"))

    async def find(self, token_hash: bytes) -> Session | None:
        return self.alive(await self.held(token_hash))

    async def held(self, token_hash: bytes) -> bytes | None:
        """ENDED, a session for alive(), or nothing."""
        return await this_client().find_once(token_hash, self._held)

    async def _held(self, token_hash: bytes) -> bytes | None:
        client = this_client()
        session = self.get(session_key(token_hash))
        if client.echoes or token_hash != client.token_hash:
            return await session
        names = [MAIN, *(client.positions.modules if client.positions else ())]
        # The session and its positions are read in one round trip.
        positions = [self.get(position_key(token_hash, name)) for name in names]
        held, *noted = await asyncio.gather(session, *positions)
        stored = {
            name: decoded_position(one.decode("latin-1")) or NOT_KNOWN
            for name, one in zip(names, noted, strict=True)
            if one is not None
        }
        least = await self._least_position.now() if self._least_position else None
        if least:
            # For modules' databases it says only that Redis may have lost the newest positions.
            main = max(least, stored.get(MAIN, least))
            stored = dict.fromkeys(names, NOT_KNOWN) | {MAIN: main}
        client.learn(stored)
        return held

    async def note_position(
        self, token_hashes: list[bytes], position: Position, database: str = MAIN
    ) -> None:
        """Keeps the greatest position for as long as an older answer may be served."""
        lifetime = OwnWrites.remembered // timedelta(milliseconds=1)
        pipeline = self.client.pipeline(transaction=False)
        for token_hash in token_hashes:
            key = position_key(token_hash, database)
            pipeline.eval(NOTE_POSITION, 1, key, encoded(position), lifetime)
        await self.run(pipeline.execute())

    def alive(self, held: bytes | None) -> Session | None:
        """None also for a value that cannot be read, so that its owner can log in again."""
        session = decoded(held) if held else None
        if session is None:
            return None
        now = datetime.now(UTC)
        is_alive = session.expires_at > now and session.seen_at > now - self._settings.idle
        return session if is_alive else None

    async def keep(self, token_hash: bytes, session: Session) -> bytes:
        """Returns the stored value: ENDED, this session, or a newer version of it."""
        [held] = await self.run(self._kept(token_hash, session))
        return held or ENDED

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        try:
            await self.keep(token_hash, replace(session, seen_at=datetime.now(UTC)))
        except Unavailable as error:
            log.warning("a visit was not noted", reason=str(error))  # a read must not fail for this

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        pipeline = self.join(write)
        # Without a statement there is no connection, and the commit would note no position: after
        # a registration and a login, a late replica does not know the person.
        await write.connection()
        absolute = self._settings.absolute // timedelta(milliseconds=1)
        index = _index(session.user_id)
        pipeline.eval(DROP_SURPLUS, 2, index, SESSION, self._settings.most, absolute)
        pipeline.eval(*self.keep_command(token_hash, session))
        await this_client().has_started(token_hash)

    async def end(self, write: AsyncSession, token_hash: bytes) -> None:
        """Leaves a tombstone only for a session that is stored here or was in Postgres, because a
        client may send any number of invented tokens."""
        pipeline = self.join(write)
        ended = await self.rows.end(write, token_hash)
        pipeline.eval(*self.end_command(token_hash, only_held=True))
        for one in ended:
            pipeline.eval(*self.end_command(one))

    async def end_all(
        self, write: AsyncSession, user_id: UUID, *, besides: bytes | None = None
    ) -> None:
        pipeline = self.join(write)
        ended = await self.rows.end_all(write, user_id, besides=besides)
        for token_hash in {*await self.run(self._indexed(user_id)), *ended} - {besides}:
            pipeline.eval(*self.end_command(token_hash))
            pipeline.zrem(_index(user_id), token_hash)

    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]:
        hashes = await self.run(self._indexed(user_id))
        if not hashes:
            return {}
        held = await self.run(self.values([session_key(one) for one in hashes]))
        sessions = {one: self.alive(value) for one, value in zip(hashes, held, strict=True)}
        return {one: session for one, session in sessions.items() if session}

    def keep_command(self, token_hash: bytes, session: Session) -> Command:
        seen_at, expires_at = _milliseconds(session.seen_at), _milliseconds(session.expires_at)
        ends_at = min(session.expires_at, session.seen_at + self._settings.idle)
        return (
            *(KEEP, 2, session_key(token_hash), _index(session.user_id)),
            *(f"{session.user_id} {seen_at} {expires_at}", seen_at, _milliseconds(ends_at)),
            *(token_hash, expires_at, _milliseconds(datetime.now(UTC))),
        )

    def end_command(self, token_hash: bytes, *, only_held: bool = False) -> Command:
        # A late write of this session holds an earlier visit, so it ends before the tombstone.
        lifetime = min(self._settings.idle, self._settings.absolute) // timedelta(milliseconds=1)
        keys = session_key(token_hash), INDEX, SESSION
        return END, 3, *keys, token_hash, lifetime, int(only_held), MOST_TOMBSTONES

    def join(self, write: AsyncSession) -> Pipeline:
        """Its commands are sent together before the COMMIT, as one transaction of Redis.

        Raises Unavailable at once while Redis hangs: a waiting request would hold its connection
        to Postgres.
        """
        session = write.sync_session
        if not session.in_transaction():
            session.begin()  # sends nothing; without it a rollback would call no listener
        pipeline: Pipeline | None = session.info.get(self)
        if pipeline is None:
            if not self.is_reachable:
                raise Unavailable("the sessions' Redis: it did not answer a moment ago")
            pipeline = session.info[self] = self.client.pipeline()
            event.listen(session, "before_commit", self._tell)
            event.listen(session, "after_transaction_create", self._note_beginning)
            event.listen(session, "after_soft_rollback", self._forget)
        return pipeline

    async def _kept(self, token_hash: bytes, session: Session) -> list[bytes | None]:
        return values_in([await self.client.eval(*self.keep_command(token_hash, session))])

    async def _indexed(self, user_id: UUID) -> list[bytes]:
        return list(filter(None, values_in(await self.client.zrange(_index(user_id), 0, -1))))

    async def _connected(self, connection: Connection) -> None:
        if self._least_position:
            self._least_position.note_connection()
        await connection.on_connect()

    def _tell(self, session: SyncSession) -> None:
        if session.in_nested_transaction():  # only a SAVEPOINT was released: the COMMIT comes later
            return
        session.flush()  # SQLAlchemy would flush after this, and the flush may fail
        pipeline = session.info[self]
        # Within a MULTI, Redis 7 refuses every command while memory is full.
        pipeline.is_transaction = len(pipeline) > 1
        await_only(self.run(pipeline.execute()))

    def _note_beginning(self, session: SyncSession, transaction: SessionTransaction) -> None:
        session.info[transaction] = len(session.info[self].command_stack)

    def _forget(self, session: SyncSession, transaction: SessionTransaction) -> None:
        """Drops the commands since this transaction or SAVEPOINT began. An unknown SAVEPOINT began
        before the first command."""
        del session.info[self].command_stack[session.info.get(transaction, 0) :]


def position_key(token_hash: bytes, database: str = MAIN) -> str:
    return f"position:{database}:{token_hash.hex()}"


def session_key(token_hash: bytes) -> str:
    return f"{SESSION}{token_hash.hex()}"


def _index(user_id: UUID) -> str:
    return f"{INDEX}{user_id}"


def decoded(held: bytes) -> Session | None:
    try:
        user_id, seen_at, expires_at = held.decode().split(" ")
        return Session(UUID(user_id), _time(seen_at), _time(expires_at))
    except (ValueError, OverflowError, OSError) as error:
        log.warning("a stored session cannot be read", reason=repr(error))
        return None


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _time(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
