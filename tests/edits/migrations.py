import re
from collections.abc import Iterator
from pathlib import Path

from edits.corpus import Repo, edit

VERSIONS = "migrations/versions"

MIGRATION = '''\
"""{slug}

Revision: {revision}, after {variant_name}
"""

from alembic import op

revision: str = "{revision}"
down_revision: {type} = {down}
branch_labels = None
depends_on = None


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''

REVISION = re.compile(r"^revision: .* = (.*)$", re.MULTILINE)
DOWN_REVISION = re.compile(r"^down_revision: .* = (.*)$", re.MULTILINE)


def heads(root: Path) -> set[str]:
    written = [path.read_text() for path in (root / VERSIONS).glob("*.py")]
    revisions = {found for text in written for found in re.findall(REVISION, text)}
    before = {
        f'"{name}"'
        for text in written
        for found in re.findall(DOWN_REVISION, text)
        for name in re.findall(r'"(\w+)"', found)
    }
    return revisions - before


def head(repo: Repo) -> str:
    (only,) = heads(repo.root)
    return only.strip('"')


def migrate(repo: Repo, slug: str, upgrade: str, downgrade: str, *after: str) -> str:
    """Writes a migration after these, or after the newest. Returns its revision."""
    before = after or (head(repo),)
    revision = f"{len(repo.files(f'{VERSIONS}/*.py')) + 1:04}_{slug[:8]}"
    if len(before) == 1:
        kind, down = "str | None", f'"{before[0]}"'
    else:
        kind, down = "tuple[str, ...]", "({})".format(", ".join(f'"{one}"' for one in before))
    text = MIGRATION.format(
        slug=slug.replace("_", " "),
        revision=revision,
        variant_name=", ".join(before),
        type=kind,
        down=down,
        upgrade=upgrade,
        downgrade=downgrade,
    )
    if "op." not in upgrade:
        text = text.replace("from alembic import op\n\n", "")
    repo.write(f"{VERSIONS}/{revision}.py", text)
    return revision


def tuned(table: str) -> tuple[str, str]:
    return (
        f'op.execute("ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.05)")',
        f'op.execute("ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor)")',
    )


@edit("changes")
def a_migration_after_the_first(repo: Repo) -> Iterator[None]:
    before = head(repo)
    new = migrate(repo, "vacuum_sessions", *tuned("login_sessions"))
    yield
    assert f'down_revision: str | None = "{before}"' in repo.read(f"{VERSIONS}/{new}.py")


@edit("changes")
def two_migrations_one_after_the_other(repo: Repo) -> Iterator[None]:
    first = migrate(repo, "first_of_two", *tuned("login_attempts"))
    second = migrate(repo, "second_of_two", *tuned("accounts"))
    yield
    assert repo.has(f"{VERSIONS}/{first}.py")
    assert f'"{first}"' in repo.read(f"{VERSIONS}/{second}.py")


@edit("changes")
def two_branches_of_the_history_and_their_merge(repo: Repo) -> Iterator[None]:
    before = head(repo)
    one = migrate(repo, "from_a_branch", *tuned("accounts"), before)
    other = migrate(repo, "of_another_branch", *tuned("login_attempts"), before)
    merge = migrate(repo, "merge_two_branches", "pass", "pass", one, other)
    yield
    assert f'= ("{one}", "{other}")' in repo.read(f"{VERSIONS}/{merge}.py")


@edit("changes")
def the_first_migration_edited_before_it_ever_ran(repo: Repo) -> Iterator[None]:
    repo.replace(
        f"{VERSIONS}/0001_the_shop.py",
        "def upgrade() -> None:\n",
        'def upgrade() -> None:\n    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")\n',
    )
    yield
    assert '    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")\n    op.create_table(\n' in (
        repo.read(f"{VERSIONS}/0001_the_shop.py")
    )


@edit("changes")
def longer_timeouts_for_migrations(repo: Repo) -> Iterator[None]:
    old = "\"SET statement_timeout = '60s'\""
    repo.replace("migrations/env.py", old, "\"SET statement_timeout = '15min'\"")
    yield
    assert "lock_timeout = '3s'\", \"SET statement_timeout = '15min'\")" in (
        repo.read("migrations/env.py")
    )
