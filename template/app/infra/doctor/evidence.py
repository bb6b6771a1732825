# Rung's file: advancing to another stage may change it.
"""The doctor's findings, without parameter values or addresses, so you can send them to others."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

VERSION = 1
# host:port, IPv4 and IPv6
ADDRESS = re.compile(
    r"[\w.-]+:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<!\w)[\da-f]{0,4}(?::[\da-f]{0,4}){2,7}(?!\w)",
    re.IGNORECASE,
)


class EvidencePart(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Skipped(EvidencePart):
    source: str
    why: str
    remedy: str

    @field_validator("why")
    @classmethod
    def _without_addresses(cls, why: str) -> str:
        """A driver's message names the server that it could not reach."""
        return ADDRESS.sub("its address", why)


class Scan(EvidencePart):
    """A part of a plan that reads a table and discards rows."""

    kind: str
    table: str
    table_rows: int
    filter: str


class Statement(EvidencePart):
    """A statement in the window. `share`: its part of the time of all statements, from 0 to 1."""

    sql: str
    calls: int
    total_ms: float
    rows: int
    pages: int
    share: float
    scans: list[Scan] = []

    @property
    def is_read(self) -> bool:
        return self.sql.lstrip(" (\n").lower().startswith(("select", "with", "values", "table"))

    @property
    def mean_ms(self) -> float:
        return self.total_ms / max(self.calls, 1)


class Table(EvidencePart):
    name: str
    live: int
    dead: int
    written: int  # rows, in the window


class Database(EvidencePart):
    """Sessions are means of the samples in the window."""

    samples: int
    active: float
    on_processor: float
    in_io: float
    waits_for_table: float
    waits_for_row: float
    waits_for_advisory: float = 0.0  # an advisory lock
    deadlocks: int | None = None
    idle_in_transaction: float
    longest_idle_s: float
    longest_idle_blocker_s: float
    longest_blocker_s: float = 0.0  # one transaction that others waited for
    clients: int
    slots: int
    processors: int | None
    statements: list[Statement] | None
    tables: list[Table] | None
    requested_checkpoints: int | None
    oldest_xid: int | None
    fullest_sequence: float | None = None
    sequence: str = ""  # its name
    kept_wal: int | None = None  # bytes, for a replication slot
    archive_fails: bool | None = None  # the last try failed


class Route(EvidencePart):
    route: str
    requests: int
    total_ms: float
    p95_ms: float
    median_calls: float | None


class Requests(EvidencePart):
    """Sums over the request lines of the log."""

    count: int
    seconds: float
    p95_ms: float
    errors: int
    total_ms: float
    db_ms: float | None
    wait_ms: float | None
    refused: int  # lines that say that Postgres has no connection left
    limited: int = 0  # lines that say that the role or the database may have no more
    routes: list[Route]


class Process(EvidencePart):
    """Means over the process lines of the log."""

    lines: int
    got: float
    wanted: float | None
    loop_p90_ms: float
    waiting_lines: float  # share of the lines with a pool that requests waited for
    stale_reads: int
    stale_repeats: int


class Evidence(EvidencePart):
    kind: Literal["rung doctor"] = "rung doctor"
    version: Literal[1] = 1
    stage: int = Field(ge=1, le=4)
    at: datetime
    window_s: float
    service: str = ""
    refused: bool = False  # Postgres had no connection for the doctor
    limited: bool = False  # the role or the database may have no more connections
    database: Database | None = None
    requests: Requests | None = None
    process: Process | None = None
    unavailable: list[str] = []  # servers that the app cannot reach, by its /ready
    readers: list[Database] = []  # servers that answer reads in the primary's place
    others: dict[str, Database] = {}  # the databases of modules, by name
    readers_of: dict[str, list[Database]] = {}  # the readers of such a database, by its name
    capabilities: dict[str, dict[str, Any]] = {}  # by name: each capability has its own model
    skipped: list[Skipped] = []

    @property
    def servers(self) -> list[Database]:
        return [*([self.database] if self.database else []), *self.readers]

    def of_others(self) -> Iterator[tuple[str, Self]]:
        """Each other database with its readers, as if it were the only one."""
        kept = self.model_dump(include={"stage", "at", "window_s"})
        for name in self.others | self.readers_of:
            found, readers = self.others.get(name), self.readers_of.get(name, [])
            yield name, type(self)(**kept, database=found, readers=readers)
