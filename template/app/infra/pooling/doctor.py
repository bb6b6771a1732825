# Rung's file: advancing to another stage may change it.
"""PgBouncer's console for the doctor: clients that wait, and for how long."""

import asyncio
import re
import time
from statistics import fmean

import asyncpg
from pydantic import PostgresDsn

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor.evidence import Evidence, EvidencePart, Skipped
from app.infra.doctor.finding import (
    Capability,
    CapabilityEvidence,
    Finding,
    Missing,
    Window,
    keeps_idle,
    seen,
)
from app.infra.failures import CANNOT_CONNECT

NAME = "PgBouncer"
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0
REMEDY = "name the role in stats_users of pgbouncer.ini, then send SIGHUP"

RDS_PROXY = re.compile(r"\.proxy-[^.]+\.[^.]+\.rds\.amazonaws\.com(\.cn)?$")
# Not named like the capability: a verdict would then wait for evidence that nobody can bring.
NO_CONSOLE = Skipped(
    source="RDS Proxy",
    why="it has no console",
    remedy="read DatabaseConnectionsBorrowLatency and DatabaseConnectionsCurrentlySessionPinned"
    " of both proxies in CloudWatch",
)

type Row = dict[str, str]


class PgBouncerSeen(EvidencePart):
    """All pools together. Clients and servers are means of the samples."""

    waiting_samples: float  # share of the samples in which a client waited
    waiting: float
    longest_wait_s: float
    clients: float
    most_clients: int
    servers_active: float
    servers_idle: float
    transactions: int
    wait_ms: float  # mean of a transaction in the window


class Console(asyncio.Protocol):
    """The console takes simple queries only, and asyncpg drops their rows: read them here.

    asyncpg logs in, with TLS and SCRAM. After that, this class alone uses the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._received = b""
        self._answered: asyncio.Future[list[Row]] | None = None
        transport.set_protocol(self)

    async def ask(self, question: str) -> list[Row]:
        self._answered = asyncio.get_running_loop().create_future()
        self._received = b""
        text = question.encode() + b"\0"
        self._transport.write(b"Q" + (len(text) + 4).to_bytes(4) + text)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._answered or self._answered.done():
            return
        columns: list[str] = []
        rows: list[Row] = []
        rest = self._received
        while len(rest) >= 5 and len(rest) > (size := int.from_bytes(rest[1:5])):
            kind, body, rest = rest[:1], rest[5 : size + 1], rest[size + 1 :]
            if kind == b"T":
                columns = _names(body)
            elif kind == b"D":
                rows.append(dict(zip(columns, _values(body), strict=False)))
            elif kind == b"E":
                reason = body.replace(b"\0", b" ").decode(errors="replace")
                self._answered.set_exception(Missing(f"its console says {reason}", REMEDY))
                return
            elif kind == b"Z":
                self._answered.set_result(rows)
                return

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered and not self._answered.done():
            self._answered.set_exception(Missing("its console closed the connection", REMEDY))


def _names(body: bytes) -> list[str]:
    names, rest = [], body[2:]
    for _ in range(int.from_bytes(body[:2])):
        name, _, rest = rest.partition(b"\0")
        names.append(name.decode())
        rest = rest[18:]
    return names


def _values(body: bytes) -> list[str]:
    values, at = [], 2
    for _ in range(int.from_bytes(body[:2])):
        size = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        values.append(body[at : at + max(size, 0)].decode(errors="replace"))
        at += max(size, 0)
    return values


async def look(window: Window) -> CapabilityEvidence | None:
    settings = environment.read(DatabaseSettings)
    if not settings.pooled:
        return None
    if any(RDS_PROXY.search(host["host"] or "") for host in settings.url.hosts()):
        return CapabilityEvidence(None, skipped=[NO_CONSOLE])
    connection = await _connect(settings.url, settings.connect_seconds)
    try:
        console = Console(connection._transport)
        limits = {row["key"]: row["value"] for row in await console.ask("SHOW CONFIG")}
        before = await _stats(console)
        samples = []
        began = time.monotonic()
        while time.monotonic() - began < window.seconds:
            samples.append(_sample(await console.ask("SHOW POOLS")))
            await asyncio.sleep(LOOK_SECONDS)
        after = await _stats(console)
    except (TimeoutError, KeyError, ValueError) as error:
        raise Missing("its console gave an unknown answer", REMEDY) from error
    finally:
        connection.terminate()
    transactions, waited = after[0] - before[0], after[1] - before[1]
    return CapabilityEvidence(
        PgBouncerSeen(
            waiting_samples=fmean(one["cl_waiting"] > 0 for one in samples),
            waiting=fmean(one["cl_waiting"] for one in samples),
            longest_wait_s=max(one["maxwait"] for one in samples),
            clients=fmean(one["cl_active"] + one["cl_waiting"] for one in samples),
            most_clients=int(limits["max_client_conn"]),
            servers_active=fmean(one["sv_active"] for one in samples),
            servers_idle=fmean(one["sv_idle"] for one in samples),
            transactions=transactions,
            wait_ms=waited / 1000 / max(transactions, 1),
        )
    )


async def _connect(url: PostgresDsn, seconds: float) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(str(url), database="pgbouncer", timeout=seconds)
    except CANNOT_CONNECT as error:
        raise Missing(f"its console cannot be reached: {error or 'no answer'}", REMEDY) from error


async def _stats(console: Console) -> tuple[int, int]:
    """Transactions, and µs that clients waited. PgBouncer updates them at once."""
    rows = await console.ask("SHOW STATS")
    return (
        sum(int(row["total_xact_count"]) for row in rows),
        sum(int(row["total_wait_time"]) for row in rows),
    )


def _sample(rows: list[Row]) -> dict[str, int]:
    """The longest wait of all pools, and sums of the rest."""
    own = [row for row in rows if row["database"] != "pgbouncer"]
    names = ("cl_active", "cl_waiting", "sv_active", "sv_idle")
    sums = {name: sum(int(row[name]) for row in own) for name in names}
    return sums | {"maxwait": max((int(row["maxwait"]) for row in own), default=0)}


def clients_run_out(evidence: Evidence) -> Finding | None:
    pooler = seen(evidence, PgBouncerSeen, NAME)
    if not pooler or pooler.clients < 0.9 * pooler.most_clients:
        return None
    return Finding(
        rule="pooler",
        text="PgBouncer's clients run out",
        do="raise max_client_conn, and the limit of open files with it",
        evidence=[f"{pooler.clients:.0f} of {pooler.most_clients} clients (SHOW POOLS)"],
    )


def clients_wait(evidence: Evidence) -> Finding | None:
    pooler = seen(evidence, PgBouncerSeen, NAME)
    if not pooler or pooler.waiting_samples < 0.5 or not keeps_idle(evidence.database):
        return None
    servers = pooler.servers_active + pooler.servers_idle
    text = "requests wait in PgBouncer, and the database is idle"
    do = "raise default_pool_size within `make budget`; hold no transaction while you wait"
    if not servers:
        text = "PgBouncer is paused, or cannot connect to Postgres"
        do = "kill -USR2 ends a pause; PgBouncer's own log says why it cannot connect"
    return Finding(
        rule="pooler",
        text=text,
        do=do,
        evidence=[
            f"{pooler.waiting:.1f} clients wait for one of {servers:.0f} connections, at most"
            f" {pooler.longest_wait_s:.0f} s (SHOW POOLS)"
        ],
    )


PGBOUNCER = Capability(NAME, PgBouncerSeen, look, (clients_run_out, clients_wait))
