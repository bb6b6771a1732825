# Rung's file: advancing to another stage may change it.
"""Checks how many rows and pages each query reads from filled tables: tests/test_indexes.py."""

import importlib
import json
import pkgutil
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import permutations
from types import ModuleType
from typing import Any

import asyncpg
from sqlalchemy import (
    ARRAY,
    BinaryExpression,
    BindParameter,
    Column,
    Enum,
    ForeignKey,
    MetaData,
    Table,
)
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import operators, visitors

from app.infra.plans import nodes_of
from app.infra.reads import Query

ROWS = 20_000

# A page of 20 rows, each with a lookup in a few other tables, stays far below.
MOST_ROWS = 500
MOST_PAGES = 1_000
ROWS_FOR_EACH_ROW = 20

# A node with a range and a filter that reads fewer rows has probably stopped at a LIMIT.
FEW_ROWS = 100

PLAN = "force_generic_plan"

_DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
_NAMES = _DIALECT.identifier_preparer

# SQL for the n-th row, by type.
VALUES = {
    "BIGINT": "n",
    "BOOLEAN": "true",
    "BYTEA": "sha256(n::text::bytea)",
    "CHARACTER VARYING": "n::text",
    "DATE": "current_date + n",
    "DOUBLE PRECISION": "n",
    "INTEGER": "n",
    "INTERVAL": "n * interval '1 second'",
    "JSONB": "'{}'",
    "NUMERIC": "n",
    "TEXT": "n::text",
    "TIMESTAMP WITH TIME ZONE": "now() + n * interval '1 second'",
    "UUID": "uuidv4()",
    "VARCHAR": "n::text",
}

MOMENTS = ("DATE", "TIMESTAMP WITH TIME ZONE")

PARAMETERS = "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'query'"
FOREIGN_KEYS_WITHOUT_INDEX = """
    SELECT conrelid::regclass || ' ' || conname FROM pg_constraint
    WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = conrelid AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
    )
"""


# For a table in another database than the common one: that database's URL.
ELSEWHERE: dict[str, str] = {}


class NotFilled(AssertionError):
    """The message names the line that the test needs."""


@dataclass
class FilledTables:
    """`fill` has a SELECT for each table that needs other values than its columns' defaults."""

    connection: asyncpg.Connection
    metadata: MetaData
    fill: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    async def insert(self) -> None:
        for url in {None, *ELSEWHERE.values()}:
            async with self._at(url) as there:
                await there._insert([t for t in there._in_order() if ELSEWHERE.get(t.name) == url])

    async def findings(self, query: Query[Any]) -> list[str]:
        """The problems of each form of a query: none if it reads only the rows that it returns."""
        read = {one.name for one in visitors.iterate(query.statement) if isinstance(one, Table)}
        url = next((ELSEWHERE[name] for name in read & ELSEWHERE.keys()), None)
        async with self._at(url) as there:
            return await there._findings(query)

    @asynccontextmanager
    async def _at(self, url: str | None) -> "AsyncGenerator[FilledTables]":
        if url is None:
            yield self
            return
        connection = await asyncpg.connect(url, server_settings={"plan_cache_mode": PLAN})
        try:
            yield replace(self, connection=connection)
        finally:
            await connection.close()

    async def _insert(self, tables: Sequence[Table]) -> None:
        for table in tables:
            try:
                rows = self.fill.get(table.name) or self._rows(table)
                done = await self.connection.execute(
                    f"INSERT INTO {_NAMES.format_table(table)} {rows}"
                )
            except asyncpg.UndefinedTableError as error:
                raise NotFilled(
                    f'The table {table.name} has no migration: make migration m="add {table.name}"'
                ) from error
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
                raise _needs_other_rows(table, error) from error
            if done == "INSERT 0 0" and table.name not in self.fill:
                # Each query of an empty table would be accepted.
                raise _needs_other_rows(table, "it has a key of a table that is still empty")
            await self._refuse_missing_members(table)
        await self.connection.execute("ANALYZE")
        await self.connection.execute(f"SET plan_cache_mode = {PLAN}")

    async def _refuse_missing_members(self, table: Table) -> None:
        """Alembic does not compare the members of an enum."""
        for column in table.columns:
            kind = getattr(column.type, "item_type", column.type)  # of an array
            if isinstance(kind, Enum) and kind.native_enum and kind.name:
                name = kind.compile(_DIALECT)
                known = await self.connection.fetchval(f"SELECT enum_range(NULL::{name})::text[]")
                for member in kind.enums:
                    if member not in known:
                        raise NotFilled(
                            f"The enum {name} has no {member!r} in Postgres. In a migration:"
                            f""" op.execute("ALTER TYPE {name} ADD VALUE '{member}'")"""
                        )

    async def _findings(self, query: Query[Any]) -> list[str]:
        found = []
        for description, form in query.forms():
            statement = form.statement
            columns = _compared(statement)
            await self.connection.execute(f"PREPARE query AS {form.sql}")
            try:
                types = await self.connection.fetchval(PARAMETERS)
                arguments = [
                    await self._literal(columns.get(name), kind, form.defaults.get(name))
                    for name, kind in zip(form.positions, types, strict=True)
                ]
                values = f"({', '.join(arguments)})" if arguments else ""
                plan = await self.connection.fetchval(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE query{values}"
                )
            finally:
                await self.connection.execute("DEALLOCATE query")
            if finding := _finding(json.loads(plan)[0]["Plan"]):
                found.append(f"{description or 'as it is'}: {finding}")
        return found

    async def _literal(self, column: Column[Any] | None, kind: str, default: Any) -> str:
        """SQL for a parameter: its constant, the value in the middle of the table, or any of its
        type."""
        base = kind.removesuffix("[]")
        if isinstance(default, list) and base != kind:
            return f"ARRAY[{', '.join([await self._quoted(one) for one in default])}]::{kind}"
        if default is not None:
            value = json.dumps(default) if kind in {"json", "jsonb"} else default
        elif column is not None:
            value = await self.connection.fetchval(
                f"SELECT {_NAMES.quote(column.name)}::text"  # noqa: S608
                f" FROM {_NAMES.format_table(column.table)} ORDER BY ctid"
                f" OFFSET {ROWS // 2} LIMIT 1"
            )
        else:
            values = {"integer": "20", "bigint": "20", "interval": "365 days"}
            value = values.get(base) or await self.connection.fetchval(
                f"SELECT ({self._value(base)})::text FROM (SELECT 20 AS n) one"  # noqa: S608
            )
        if value is None:
            return "NULL"
        quoted = await self._quoted(value)
        is_whole = kind == base or (column is not None and isinstance(column.type, ARRAY))
        return f"{quoted}::{kind}" if is_whole else f"ARRAY[{quoted}]::{kind}"

    async def _quoted(self, value: Any) -> str:
        quoted: str = await self.connection.fetchval("SELECT quote_literal($1::text)", str(value))
        return quoted

    def _rows(self, table: Table) -> str:
        """A SELECT that fills the table. A foreign key refers to its table's rows one by one."""
        values, sources = {}, [f"generate_series(1, {ROWS}) n"]
        places: dict[object, int] = {}
        for column in table.columns:
            target = self._target(column)
            if target is not None:
                # All columns of a foreign key come from one row.
                key = _longest_key(column)
                place = places.setdefault(key.constraint if key else column, len(places))
                if place == len(sources) - 1:  # with two foreign keys, pairs that differ
                    numbered = "SELECT *, row_number() OVER () AS _n"
                    sources.append(
                        f"({numbered} FROM {_NAMES.format_table(target.table)}) _{place}"
                        f" ON _{place}._n = (n + {place}) % {ROWS}"
                    )
                values[_NAMES.quote(column.name)] = f"_{place}.{_NAMES.quote(target.name)}"
            elif (column.server_default is None or _is_moment(column)) and not column.nullable:
                values[_NAMES.quote(column.name)] = self._value(column.type.compile(_DIALECT))
        chosen = ", ".join(values.values())
        names = f"({', '.join(values)}) " if values else ""
        return f"{names}SELECT {chosen} FROM {' JOIN '.join(sources)}"  # noqa: S608

    def _target(self, column: Column[Any]) -> Column[Any] | None:
        """The key that a column holds: by its foreign key, or because a query joins them. None for
        a row of its own table, which is still empty."""
        key = _longest_key(column)
        target = key.column if key else self._joined.get(column)
        return target if target is not None and target.table is not column.table else None

    @cached_property
    def _joined(self) -> dict[Column[Any], Column[Any]]:
        return {
            column: key
            for query in Query.declared
            for element in visitors.iterate(query.statement)
            if isinstance(element, BinaryExpression) and element.operator is operators.eq
            for column, key in permutations((element.left, element.right))
            if isinstance(column, Column) and isinstance(key, Column)
            if _is_key(key) and not _is_key(column)
        }

    def _in_order(self) -> list[Table]:
        """The tables, each one after the tables that its foreign keys refer to."""
        targets = {
            table: {
                target.table
                for column in table.columns
                if (target := self._target(column)) is not None
            }
            for table in self.metadata.sorted_tables
        }
        try:
            return list(TopologicalSorter(targets).static_order())
        except CycleError:
            self._joined.clear()
            return self.metadata.sorted_tables

    def _value(self, kind: str) -> str:
        kind = re.sub(r"\(.*\)| COLLATE .*", "", kind).strip().upper()
        known = VALUES | {name.upper(): value for name, value in self.values.items()}
        if kind not in known:
            raise NotFilled(f"Write VALUES[{kind!r}] in tests/test_indexes.py.")
        return known[kind]


def _needs_other_rows(table: Table, why: object) -> NotFilled:
    return NotFilled(
        f"The table {table.name} needs other rows. Write them as FILL[{table.name!r}]"
        f" in tests/test_indexes.py, as the example there does: {why}"
    )


def declared_queries(app: ModuleType) -> dict[str, Query[Any]]:
    """Each Query of the app by its place, also in a dict, in a class or in a list."""
    for module in pkgutil.walk_packages(app.__path__, f"{app.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    prefix = f"{app.__name__}."
    return {
        query.declared_at: query for query in Query.declared if query.declared_at.startswith(prefix)
    }


def _longest_key(column: Column[Any]) -> ForeignKey | None:
    """The one with the most columns, whose row has all of them."""
    keys = column.foreign_keys
    return max(keys, key=lambda one: len(one.constraint.elements), default=None)  # type: ignore[union-attr]


def _is_key(column: Column[Any]) -> bool:
    table = column.table
    return isinstance(table, Table) and list(table.primary_key) == [column]


def _is_moment(column: Column[Any]) -> bool:
    """Its default would be the same in all rows."""
    return column.computed is None and column.type.compile(_DIALECT) in MOMENTS


def _compared(statement: visitors.ExternallyTraversible) -> dict[str, Column[Any]]:
    """The column that is compared with each parameter, or with each of its elements."""
    found = {}
    for element in visitors.iterate(statement):
        if isinstance(element, BinaryExpression) and isinstance(element.left, Column):
            compared: Any = element.right
            while hasattr(compared, "element"):  # any_(…) and its parentheses
                compared = compared.element
            if isinstance(compared, BindParameter) and isinstance(element.left.table, Table):
                found[compared.key] = element.left
    return found


def _finding(plan: dict[str, Any]) -> str:
    nodes = list(nodes_of(plan))
    returned = max(plan["Actual Rows"] * plan["Actual Loops"], 1)
    read = sum(_rows_read(node) for node in nodes)
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    reads_many_rows = read > max(MOST_ROWS, ROWS_FOR_EACH_ROW * returned)
    reads_many_pages = pages > max(MOST_PAGES, ROWS_FOR_EACH_ROW * returned)
    if not (reads_many_rows or reads_many_pages):
        suspect = next((node for node in nodes if _reads_to_drop(node)), None)
        return f"it filters the rows of an index range. {_advice(suspect)}" if suspect else ""
    worst = max(nodes, key=_rows_read)
    reads = f"it reads {read:,.0f} rows and {pages:,} pages to return {returned:,.0f}."
    return f"{reads} {_advice(worst)}"


def _rows_read(node: dict[str, Any]) -> float:
    if "Relation Name" not in node and "Index Name" not in node:
        return 0
    in_each_loop = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return float(in_each_loop * node["Actual Loops"])


def _reads_to_drop(node: dict[str, Any]) -> bool:
    """In these tables every row passes the filter. In a team's tables, most rows may not."""
    return _has_range(node) and "Filter" in node and _rows_read(node) < FEW_ROWS


def _has_range(node: dict[str, Any]) -> bool:
    return re.search("[<>]", node.get("Index Cond", "")) is not None


def _advice(node: dict[str, Any]) -> str:
    table, condition = node.get("Relation Name"), node.get("Filter")
    if table is None or condition is None:
        return f"Most rows are read by: {node['Node Type']} on {table or node.get('Index Name')}"
    compared = re.findall(r"(?:\(|\.)(\w+)(?:\)::\w+)? (?:=|<|>|<=|>=) ", condition)
    names = list(dict.fromkeys(compared))
    index = ", ".join(f'"{name}"' for name in names)
    if _has_range(node):
        add = f"Add an index like {node['Index Name']} with {index} before its range"
    else:
        add = f'Add to the model: Index("ix_{table}_{"_".join(names)}", {index})'
    found = f"{node['Node Type']} on {table}, filter {condition}."
    if not names and (soft := re.fullmatch(r"\((?:\w+\.)?(\w+ IS (?:NOT )?NULL)\)", condition)):
        where = f'postgresql_where=text("{soft[1]}")'
        return f"{found} Add to its index, and give it a new name for Alembic: {where}"
    return f"{found} {add if names else 'See docs/guide/queries.md.'}"
