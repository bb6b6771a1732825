"""Follows docs/runbooks/schema-changes.md while an old and a new version use the tables.

Runs in a generated repo: python -m runbook_schema.drive
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from dev import postgres

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

from runbook import blocks

PAGE = postgres.REPOSITORY / "docs/runbooks/schema-changes.md"
VERSIONS = postgres.REPOSITORY / "migrations/versions"
SECONDS = 300
EXECUTED: set[str] = set()

TABLES = """
CREATE TABLE items (id uuid PRIMARY KEY DEFAULT uuidv7(), name text NOT NULL);
CREATE TABLE people (id uuid PRIMARY KEY DEFAULT uuidv7(), full_name text NOT NULL);
INSERT INTO items (name) SELECT 'item ' || n FROM generate_series(1, 20000) n;
INSERT INTO people (full_name) SELECT 'Ada Lovelace' FROM generate_series(1, 5000) n;
"""

# The first column of the page's table, as statements, and the rule that refuses each.
# The twins below it are as strangers write them.
UNSAFE = {
    "ALTER TABLE items RENAME COLUMN name TO title": "renaming-column",
    "ALTER TABLE items RENAME TO things": "renaming-table",
    "ALTER TABLE items ADD COLUMN title text NOT NULL": "adding-required-field",
    "ALTER TABLE items ALTER COLUMN title SET NOT NULL": "adding-not-nullable-field",
    "ALTER TABLE items ALTER COLUMN name TYPE varchar(9)": "changing-column-type",
    "CREATE INDEX by_name ON items (name)": "require-concurrent-index-creation",
    "ALTER TABLE items ADD CONSTRAINT c CHECK (name <> '')": "constraint-missing-not-valid",
    "ALTER TABLE items ADD CONSTRAINT c FOREIGN KEY (id) REFERENCES people (id)": (
        "constraint-missing-not-valid"
    ),
    "ALTER TABLE items ADD CONSTRAINT c UNIQUE (name)": "disallowed-unique-constraint",
    "ALTER TABLE items DROP COLUMN name": "ban-drop-column",
    "DROP TABLE items": "ban-drop-table",
    "DROP FUNCTION items_name_is_title()": "ban-drop-function",
    "ALTER TABLE items SET SCHEMA other": "ban-set-schema",
    "ALTER TABLE items ADD COLUMN key uuid DEFAULT uuidv7()": "adding-field-with-default",
    "ALTER TABLE items ADD key text GENERATED ALWAYS AS (name) STORED": "adding-field-with-default",
    "ALTER TABLE items ADD n bigint GENERATED ALWAYS AS IDENTITY": "adding-field-with-default",
    "ALTER TABLE items SET LOGGED": "rewrites-the-table",
    "alter table if exists items set unlogged": "rewrites-the-table",
    "ALTER INDEX by_name SET TABLESPACE fast": "rewrites-the-table",
    "ALTER TABLE items ALTER COLUMN name SET EXPRESSION AS (1)": "rewrites-the-table",
    "CLUSTER items USING by_name": "rewrites-the-table",
    "VACUUM FULL items": "rewrites-the-table",
    "VACUUM (ANALYZE, FULL) items": "rewrites-the-table",
    "DROP INDEX by_name": "require-concurrent-index-deletion",
    "REINDEX TABLE items": "require-concurrent-reindex",
    "ALTER TABLE items ADD CONSTRAINT c EXCLUDE USING gist (name WITH =)": (
        "constraint-missing-not-valid"
    ),
    "ALTER TABLE items ADD COLUMN n bigint DEFAULT 0 CHECK (n >= 0)": "locks-the-table",
    "ALTER TABLE items ADD CONSTRAINT c PRIMARY KEY (name)": "adding-serial-primary-key-field",
    "ALTER TABLE items ATTACH PARTITION part DEFAULT": "locks-the-table",
    "ALTER TABLE items DETACH PARTITION part": "require-concurrent-partition-detach",
    "ALTER DOMAIN positive SET NOT NULL": "locks-the-table",
    "LOCK TABLE items IN SHARE MODE": "locks-the-table",
    "lock only items": "locks-the-table",
    "TRUNCATE items": "locks-the-table",
    "REFRESH MATERIALIZED VIEW sums": "locks-the-table",
    "UPDATE items SET title = name": "changes-rows",
    "update only items set title = name where title is null": "changes-rows",
    "UPDATE items SET title = 'WHERE id = 1'": "changes-rows",
    "UPDATE items SET title = name FROM people WHERE items.id = people.id": "changes-rows",
    "WITH old AS (SELECT id FROM items) DELETE FROM items USING old": "changes-rows",
    'SELECT 1; /* ; */ DELETE FROM "items" -- ; all': "changes-rows",
    "MERGE INTO items USING people ON true WHEN MATCHED THEN DELETE": "changes-rows",
    "-- squawk-ignore locks-the-table\nDELETE FROM items": "changes-rows",
    "REVOKE SELECT ON items FROM app": "breaks-the-old-version",
    "ALTER TABLE items OWNER TO somebody": "breaks-the-old-version",
    "ALTER TABLE items ENABLE ROW LEVEL SECURITY": "breaks-the-old-version",
    "ALTER TABLE items ADD COLUMN n bigint NOT NULL DEFAULT NULL": "breaks-the-old-version",
    "DROP OWNED BY app": "breaks-the-old-version",
    "SET lock_timeout = '1h'": "changes-the-lock-timeout",
    "RESET ALL": "changes-the-lock-timeout",
    "SELECT set_config('lock_timeout', '0', false)": "changes-the-lock-timeout",
    "DO $$ BEGIN UPDATE items SET title = name; END $$": "hides-statements",
    "DO LANGUAGE plpgsql 'BEGIN DROP TABLE items; END'": "hides-statements",
    "DO $x$ BEGIN EXECUTE 'ALTER TABLE items SET LOGGED'; END $x$": "hides-statements",
    "CALL fill_items()": "hides-statements",
}
# Forms that nobody has to wait for. A table that the migration makes is used by nobody.
SAFE = [
    "ALTER TABLE items ADD COLUMN at timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE items ALTER COLUMN name SET STATISTICS 500",
    "ALTER TABLE items SET (fillfactor = 90)",
    "ALTER TABLE items ADD CONSTRAINT c CHECK (name <> '') NOT VALID",
    "ALTER TABLE items ADD n bigint, ADD CONSTRAINT c CHECK (n > 0) NOT VALID",
    "ALTER TYPE color ADD VALUE 'red'",
    "UPDATE items SET name = 'x' WHERE id = '00000000-0000-0000-0000-000000000000'",
    "DELETE FROM items WHERE items.id IN ('00000000-0000-0000-0000-000000000000')",
    "INSERT INTO items (name) VALUES ('; LOCK items;') ON CONFLICT (id) DO UPDATE SET name = ''",
    "-- TRUNCATE items;\nSELECT 1 /* ; LOCK items; */",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN DELETE FROM items; END $f$",
    "DO $$ BEGIN CREATE TYPE color AS ENUM ('red'); EXCEPTION WHEN others THEN NULL; END $$",
    "CREATE TABLE new (id bigint PRIMARY KEY); UPDATE new SET id = 0; TRUNCATE new",
    "CREATE TABLE part (id uuid); ALTER TABLE items ATTACH PARTITION part DEFAULT",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY sums",
    "SET LOCAL statement_timeout = '1h'",
    "-- squawk-ignore changes-rows\nUPDATE items SET title = name",
    "-- squawk-ignore ban-drop-column, breaks-the-old-version\nALTER TABLE items DROP COLUMN name",
    '-- squawk-ignore ban-drop-column"""); op.drop_column("items", "name"); op.execute("""SELECT 1',
    'ALTER TABLE items ADD COLUMN "check" boolean',
    "CREATE TABLE new (id bigint PRIMARY KEY); REVOKE ALL ON new FROM PUBLIC",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT 1; DELETE FROM items; END",
]
MIGRATION = '''
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""{sql}""")


def downgrade() -> None: ...
'''


def blocks_of(section: str, *fences: str) -> list[str]:
    found = blocks(PAGE, *fences or ("sql", "bash"))
    chosen = [one for one in found if one.section.startswith(section)]
    EXECUTED.update(f"{one.page} {section} {one.part}" for one in chosen)
    return [one.commands for one in chosen]


class Versions:
    """The statements of two versions of an app, each of which knows one name of a column."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.expected: dict[UUID, str] = {}
        self.statements: Counter[str] = Counter()
        self.failed: list[str] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, column: str) -> None:
        self._running[column] = asyncio.create_task(self._live(column))

    async def stop(self, column: str) -> None:
        """Finishes its open requests, as a copy does."""
        await self._running.pop(column)

    async def until_used(self, column: str, statements: int = 30) -> None:
        wanted = self.statements[column] + statements
        async with asyncio.timeout(SECONDS):
            while self.statements[column] < wanted and not self._running[column].done():
                await asyncio.sleep(0.01)

    async def _live(self, column: str) -> None:
        connection = await asyncpg.connect(self._url)
        mine: list[UUID] = []
        while column in self._running:
            try:
                await self._use(connection, column, mine)
            except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self.failed.append(f"{column}: {error!r}")
                return

    async def _use(self, connection: asyncpg.Connection, column: str, mine: list[UUID]) -> None:
        insert = f"INSERT INTO items ({column}) VALUES ($1) RETURNING id"  # noqa: S608
        update = f"UPDATE items SET {column} = $1 WHERE id = $2"  # noqa: S608
        text = uuid4().hex
        mine.append(await connection.fetchval(insert, text))
        self.expected[mine[-1]] = text
        text, row = uuid4().hex, mine[len(mine) // 2]
        await connection.execute(update, text, row)
        self.expected[row] = text
        await connection.fetch(f"SELECT id, {column} FROM items WHERE id = $1", row)  # noqa: S608
        self.statements[column] += 3
        await asyncio.sleep(0.005)


async def migrated(connection: asyncpg.Connection, sql: str) -> None:
    """With the limits of migrations/env.py, and as often as it says."""
    for _ in range(100):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '3s';{sql}")
        except asyncpg.LockNotAvailableError:
            continue
        return
    raise AssertionError(f"never got its lock: {sql}")


def lint_warnings() -> dict[str, list[str]]:
    """The rules that each migration breaks: those of the page, and those that it warns of."""
    safe = [sql for number in "123" for sql in blocks_of(f"{number}.", "sql")] + SAFE
    named = [(f"safe_{n}", sql) for n, sql in enumerate(safe)]
    named += [(f"unsafe_{n}", sql) for n, sql in enumerate(UNSAFE)]
    before = "0001"
    for revision, sql in named:
        text = MIGRATION.format(revision=revision, before=before, sql=sql)
        (VERSIONS / f"{revision}.py").write_text(text, encoding="utf-8")
        before = revision
    lint = [sys.executable, "-m", "dev.lint_migrations"]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    broken = re.findall(r"squawkhq\.com/docs/([a-z-]+).*?/(\w+)\.sql:", done.stdout, re.DOTALL)
    broken += [
        (rule, file) for file, rule in re.findall(r"(?m)^(\w+)\.py: ([a-z-]+):", done.stdout)
    ]
    assert broken, done.stderr
    return {name: [rule for rule, file in broken if file == name] for name, _ in named}


def rename_version_table() -> None:
    env = VERSIONS.parent / "env.py"
    text = env.read_text(encoding="utf-8")
    named = 'literal_binds=True, version_table="shop", version_table_schema="public"'
    assert "literal_binds=True" in text
    env.write_text(text.replace("literal_binds=True", named), encoding="utf-8")


def said_of(python: str) -> str:
    """The message of the lint for a migration that fails."""
    sql = f'SELECT 1"""); {python}; op.execute("""SELECT 1'
    text = MIGRATION.format(revision="fails", before="0001", sql=sql)
    (VERSIONS / "fails.py").write_text(text, encoding="utf-8")
    lint = [sys.executable, "-m", "dev.lint_migrations"]
    return subprocess.run(lint, capture_output=True, text=True, check=False).stderr


def not_tried() -> list[str]:
    """Forms that the page calls refused, and that are no statement here."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    forms = [form for row in rows for form in re.findall(r"`(.*?)`", row)]
    assert forms
    patterns = {form: ".*".join(map(re.escape, form.split("…"))) for form in forms}
    return [
        form
        for form, pattern in patterns.items()
        if not any(re.search(pattern, one) for one in UNSAFE)
    ]


async def followed(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    await connection.execute(TABLES)
    expand, backfill, check, contract = blocks_of("1.")
    not_null, validate = blocks_of("3.")
    versions = Versions(url)
    versions.start("name")
    await versions.until_used("name")
    begun = time.monotonic()
    await migrated(connection, expand)
    await versions.until_used("name")
    await migrated(connection, not_null)
    await in_bash(url, f"{backfill}\n{check}")
    await migrated(connection, validate)
    versions.start("title")
    await asyncio.gather(*(versions.until_used(one, 300) for one in ("name", "title")))
    differ = await connection.fetchval("SELECT count(*) FROM items WHERE name <> title")
    await versions.stop("name")
    await migrated(connection, contract)
    await versions.until_used("title")
    await versions.stop("title")
    seconds = time.monotonic() - begun
    rows = dict(await connection.fetch("SELECT id, title FROM items"))
    is_empty = [row for row, title in rows.items() if not title]
    wrong = [row for row, text in versions.expected.items() if rows.get(row) != text]
    report = {
        "failed": versions.failed,
        "differ": differ,
        "wrong": len(wrong),
        "empty": len(is_empty),
        "rows": len(rows),
        "statements": dict(versions.statements),
        "seconds": round(seconds, 1),
        "split": await split(connection),
    }
    await connection.close()
    return report


async def split(connection: asyncpg.Connection) -> list[list[str]]:
    for sql in blocks_of("2."):
        await migrated(connection, sql)
    await connection.execute("UPDATE people SET full_name = full_name WHERE first_name IS NULL")
    for statement in (
        "INSERT INTO people (full_name) VALUES ('Grace Brewster Hopper')",
        "INSERT INTO people (first_name, last_name) VALUES ('Alan', 'Turing')",
        "UPDATE people SET last_name = 'Perlis' WHERE first_name = 'Alan'",
        "UPDATE people SET full_name = 'Grace Hopper' WHERE first_name = 'Grace'",
    ):
        await connection.execute(statement)
    found = await connection.fetch("SELECT DISTINCT full_name, first_name, last_name FROM people")
    return sorted([list(row) for row in found])


async def in_bash(url: str, commands: str) -> None:
    environment = postgres.environment() | {
        "PATH": f"{postgres.binaries()}:{os.environ['PATH']}",
        "DIRECT": url,
    }
    done = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-o", "pipefail", "-c", commands),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await done.communicate()
    assert done.returncode == 0, f"{commands}\n{said.decode()}"


def main() -> None:
    with ExitStack() as stack:
        report = asyncio.run(followed(stack.enter_context(postgres.for_load())))
    report["executed"] = sorted(EXECUTED)
    rename_version_table()
    report |= {"unsafe": list(UNSAFE.values()), "not tried": not_tried(), "lint": lint_warnings()}
    report["asks"] = said_of('op.get_bind().exec_driver_sql("SELECT 1")')
    report["typo"] = said_of('op.add_colum("items", "name")')
    print(json.dumps(report))


if __name__ == "__main__":
    main()
