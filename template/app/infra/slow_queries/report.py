# Rung's file: advancing to another stage may change it.
"""The report of slow statements and of missing or needless indexes."""

import json
import shutil
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

from app.infra.statement_text import shortened

# In smaller tables an index makes no noticeable difference.
MANY_ROWS = 10_000

FORGOTTEN = (
    "Postgres has dropped the rarer statements, because there were too many. Raise"
    " pg_stat_statements.max, or find the code that writes values into SQL."
)
SEQUENTIAL_RULE = (
    "The report names a table of 10,000 rows or more if sequential scans read more of its rows than"
    " index scans do. There must be at least 100 of them, one in 1,000 of all scans, and they must"
    " read 1,000 rows each on average."
)
FILTERING_RULE = (
    "The report names an index on a table of 10,000 rows or more if a statement reads it and drops"
    " most rows: at least 500 pages a call, and 20 for each returned row. An index that begins with"
    " the condition's columns would read little."
)
UNUSED_RULE = (
    "The report names an index on a table of 10,000 rows or more that nothing has used on this"
    " server or on a replica. It leaves out those that enforce a constraint or serve a foreign key."
)
DUPLICATE_RULE = (
    "The report names an index if its columns are the first columns of another one of its kind."
)
INVALID_RULE = (
    "The report names an index that a failed CREATE INDEX CONCURRENTLY or REINDEX left behind: each"
    " write updates it, and no read uses it."
)


class Statement(BaseModel):
    """One form of statement, with $1 for its values. `share` of all statements' time is 0 to 1."""

    id: str
    sql: str
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    pages: int  # of 8 kB, from memory or disk
    share: float


class Use(BaseModel):
    id: str
    sql: str
    calls: int
    mean_ms: float


class SequentialUse(Use):
    """Its plan reads the table sequentially, and looks for the condition `filter`."""

    filter: str | None


class SequentialTable(BaseModel):
    table: str
    rows: int
    sequential_scans: int
    sequential_rows: int
    index_scans: int
    index_rows: int
    statements: list[SequentialUse]


class FilteringUse(Use):
    """It reads an index and drops most of the rows that it finds."""

    table: str
    index: str
    filter: str
    pages_per_call: float
    rows_per_call: float


class UnusedIndex(BaseModel):
    index: str
    table: str
    bytes: int


class DuplicateIndex(BaseModel):
    index: str
    table: str
    bytes: int
    kept: str


class InvalidIndex(BaseModel):
    index: str
    table: str
    command: str


class ReplicaReport(BaseModel):
    """The counts of one replica. `problem` says why there is nothing."""

    server: str
    problem: str | None = None
    statements: list[Statement] = []
    sequential_tables: list[SequentialTable] = []
    filtering_scans: list[FilteringUse] = []


class Report(BaseModel):
    """The content of the text and of --json. Fields may be added, and none changes its meaning.

    Statements come by total time, tables by rows read sequentially, indexes by size. Counts of
    tables and indexes begin at `tables_since` or before.
    """

    database: str
    statements_since: datetime
    statements_forgotten: int
    statements: list[Statement]
    tables_since: datetime
    sequential_tables: list[SequentialTable]
    filtering_scans: list[FilteringUse]
    unused_indexes: list[UnusedIndex]
    duplicate_indexes: list[DuplicateIndex]
    invalid_indexes: list[InvalidIndex]
    replicas: list[ReplicaReport]

    @property
    def problems(self) -> list[str]:
        away = [replica for replica in self.replicas if replica.problem]
        return [f"Replica {replica.server}: {replica.problem}" for replica in away]

    def as_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2)

    def as_text(self) -> str:
        counted = f"since {_minute(self.tables_since)} or before"
        return "\n\n".join(
            [
                _section(
                    f"Statements of {self.database} by total time,"
                    f" since {_minute(self.statements_since)}",
                    _statement_lines(self.statements),
                    FORGOTTEN if self.statements_forgotten else "",
                ),
                _section(
                    f"Tables read sequentially, {counted}",
                    [line for table in self.sequential_tables for line in _table_lines(table)],
                    SEQUENTIAL_RULE,
                ),
                _section(
                    "Indexes that find too much", _filtering(self.filtering_scans), FILTERING_RULE
                ),
                _section(
                    f"Unused indexes, {counted}",
                    [f"{i.index} on {i.table}, {_size(i.bytes)}" for i in self.unused_indexes],
                    UNUSED_RULE,
                ),
                _section(
                    "Duplicate indexes",
                    [
                        f"{i.index} on {i.table}, {_size(i.bytes)}: {i.kept} does its work"
                        for i in self.duplicate_indexes
                    ],
                    DUPLICATE_RULE,
                ),
                _section(
                    "Invalid indexes",
                    [f"{i.index} on {i.table}: {i.command};" for i in self.invalid_indexes],
                    INVALID_RULE,
                ),
                *map(_of_replica, self.replicas),
            ]
        )


def _of_replica(replica: ReplicaReport) -> str:
    if replica.problem:
        return f"Replica {replica.server}: {replica.problem}"
    on = f"on replica {replica.server}"
    tables = [line for table in replica.sequential_tables for line in _table_lines(table)]
    return "\n\n".join(
        [
            _section(f"Statements {on} by total time", _statement_lines(replica.statements)),
            _section(f"Tables read sequentially {on}", tables),
            _section(f"Indexes that find too much {on}", _filtering(replica.filtering_scans)),
        ]
    )


def _filtering(found: Sequence[FilteringUse]) -> list[str]:
    lines = []
    for use in found:
        reads = f"{use.pages_per_call:,.0f} pages a call for {use.rows_per_call:,.1f} rows"
        lines += [f"{use.index} on {use.table}: {reads}", *_use_lines(use, use.filter)]
    return lines


def _section(heading: str, lines: list[str], rule: str = "") -> str:
    explained = textwrap.wrap(rule, _width(), initial_indent="  ", subsequent_indent="  ")
    ending = "" if lines else " none"
    return "\n".join([f"{heading}:{ending}", *(f"    {line}" for line in lines), *explained])


def _statement_lines(statements: Sequence[Statement]) -> list[str]:
    if not statements:
        return []
    heads = ("total", "share", "calls", "mean", "rows")
    rows = [
        (
            f"{statement.total_ms:,.0f} ms",
            f"{statement.share:.1%}",
            f"{statement.calls:,}",
            f"{statement.mean_ms:,.2f} ms",
            f"{statement.rows:,}",
        )
        for statement in statements
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    sqls = ["statement", *(statement.sql for statement in statements)]
    return [
        _fitting("  ".join(map(str.rjust, row, widths)), sql)
        for row, sql in zip([heads, *rows], sqls, strict=True)
    ]


def _table_lines(found: SequentialTable) -> list[str]:
    reads = (
        f"{found.sequential_scans:,} sequential scans read {found.sequential_rows:,} rows,"
        f" {found.index_scans:,} index scans {found.index_rows:,}"
    )
    lines = [f"{found.table}, {found.rows:,} rows: {reads}"]
    for use in found.statements:
        lines += _use_lines(use, use.filter or "every row")
    return lines


def _use_lines(use: Use, condition: str) -> list[str]:
    return [
        _fitting(f"  {use.calls:,} calls of {use.mean_ms:,.2f} ms:", use.sql),
        _fitting("    looks for", condition),
    ]


def _fitting(beginning: str, sql: str) -> str:
    """One line that fits the terminal."""
    return f"{beginning}  {shortened(sql, max(_width() - len(beginning) - 6, 40))}"


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
