# Rung's file: advancing to another stage may change it.
"""Failures that clients see as an answer, such as 503."""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import asyncpg
import structlog
from asyncpg.pgproto import pgproto
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger()


class Failure(Exception):
    """An answer to the client: a status, a title and headers. The message is for the log only."""

    status: ClassVar[int]
    title: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}


class Unavailable(Failure):
    """A server that this process depends on did not answer. The client may retry soon."""

    status = 503
    title = "Not available right now"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class OutOfRange(Failure):
    """Postgres cannot hold or use a value of the request, such as a number that is too large."""

    status = 422
    title = "A value in the request is out of range"


class NotConnected(Unavailable):
    """No connection could be opened."""


CONNECTION_LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # Postgres closed the connection as a statement began
)

# A migration changed a type after the driver asked for it, so the rows do not fit.
TYPES_CHANGED = (asyncpg.InvalidCachedStatementError, BufferError, pgproto.BufferError)

# A statement that ran too long or waited too long for a lock, a deadlock, a conflict. XX000 is an
# internal error, such as "cache lookup failed" while a migration runs. 55006: another statement
# uses the object.
_WORTH_ANOTHER_TRY = frozenset({"57014", "55P03", "55006", "40P01", "40001", "XX000"})

# No disk, memory or connections are left; an administrator or a timeout ended it; the disk fails.
_SERVER_FAILS = ("53", "57P", "25P03", "25P04", "58")

# Postgres refuses the value itself. Division by zero and a text of another form are our mistakes.
_OUT_OF_RANGE = (
    *("22001", "22003", "22008"),  # a text, a number or a time is too long or too large
    *("22021", "22P05"),  # the character NUL in a text, and in a text within JSON
    *("22025", "2201B", "2201W", "2201X"),  # a pattern of LIKE, a regular expression, a page
    *("54000", "54001"),  # too long for an index, too deep
)

# The driver names these as the cause of its DataError. The second is half of a character.
_TOO_LARGE = (OverflowError, UnicodeEncodeError)

# Postgres refused a statement, did not answer it, or the connection is gone.
POSTGRES_FAILS = (*CONNECTION_LOST, asyncpg.PostgresError, asyncpg.InterfaceError)

# Also an impossible host name (ValueError).
CANNOT_CONNECT = (*POSTGRES_FAILS, ValueError)

# No such table, no such column.
_NOT_MIGRATED = frozenset({"42P01", "42703"})


@contextmanager
def ends_in_words() -> Generator[None]:
    """Ends a command in words, not with a traceback, when a server is down or Postgres refuses."""
    try:
        yield
    except BrokenPipeError:  # usually of the output: app/infra/commands.py
        raise
    except (Unavailable, DBAPIError, *POSTGRES_FAILS) as error:
        cause = getattr(error, "orig", None) or error
        server = "" if isinstance(error, Unavailable | OSError) else "Postgres: "
        next_step = "Nothing is lost. Once the cause is gone, run this again."
        if getattr(cause, "sqlstate", None) in _NOT_MIGRATED:
            next_step = "Is this the right database? Then run its migrations: alembic upgrade head"
        elif isinstance(error, DBAPIError):
            raise  # A mistake of the command: its place matters.
        sys.exit(f"{server}{reason_of(cause)}\n{next_step}")
    except KeyboardInterrupt:
        sys.exit(130)


def reason_of(error: BaseException) -> str:
    """Its message on one line. A timeout has none."""
    return " ".join(str(error).split()) or "no answer in time"


def unavailable_after(error: BaseException | None) -> Unavailable | None:
    """None if the same statement would fail again a moment later. Raises OutOfRange."""
    if _lacks_transaction_ids(error):
        return Unavailable(f"Postgres: {error}")
    _refuse_out_of_range(error)
    if isinstance(error, CONNECTION_LOST):
        return Unavailable(f"Postgres: the connection was lost: {error}")
    if isinstance(error, TYPES_CHANGED):
        return Unavailable(f"Postgres: a type has changed: {error}")
    state = getattr(error, "sqlstate", None) or ""
    may_pass = state in _WORTH_ANOTHER_TRY or state.startswith(_SERVER_FAILS)
    return Unavailable(f"Postgres: {error}") if may_pass or _lacks_a_right(error) else None


def _refuse_out_of_range(error: BaseException | None) -> None:
    """Logs the reason without the value. A value of another type is our mistake, and not the
    client's."""
    refused = error.__cause__ if isinstance(error, asyncpg.DataError) else None
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(refused, _TOO_LARGE):
        log.info("a value is out of range", reason=str(refused))
        raise OutOfRange from error
    if state in _OUT_OF_RANGE:
        # A warning: it may be our own value, such as of a sequence. The message may hold it.
        log.warning("a value is out of range", reason=type(error).__name__)
        raise OutOfRange from error


def _lacks_a_right(error: BaseException | None) -> bool:
    """The role has lost the right, for example in a rotation. Row-level security and a trigger
    raise the same SQLSTATE, but there a retry does not help."""
    place = getattr(error, "server_source_function", None) or ""
    return isinstance(error, asyncpg.InsufficientPrivilegeError) and "aclcheck" in place


def _lacks_transaction_ids(error: BaseException | None) -> bool:
    """Until a VACUUM, Postgres refuses all writes. A value that is too large for an index raises
    the same SQLSTATE."""
    place = getattr(error, "server_source_function", None)
    return place in {"GetNewTransactionId", "GetNewMultiXactId"}
