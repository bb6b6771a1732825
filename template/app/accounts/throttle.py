from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.accounts.models import LoginAttempts
from app.errors import AppError
from app.infra.database import WriteSession

log = structlog.get_logger()

WINDOW = timedelta(minutes=15)
TRIES_PER_ACCOUNT_AND_ADDRESS = 10
TRIES_PER_ACCOUNT = 100  # more, or anybody could lock its owner out with ten guesses
TRIES_PER_ADDRESS = 100  # an office shares one


class TooManyLogins(AppError):
    """Too many attempts"""

    status = 429


async def count_attempt(write: WriteSession, email: str, address: str) -> None:
    """Counts before the password is looked at, so that parallel guesses count too.

    Commits. Raises TooManyLogins.
    """
    # In one order for everybody, so that two attempts never wait for each other's rows.
    waits = [
        await _count(write, origin, allowed) for origin, allowed in _origins(email, address).items()
    ]
    await _delete_some_that_are_over(write)
    await write.commit()
    if any(waits):
        log.warning("too many attempts to log in", address=address)
        seconds = int(max(waits).total_seconds()) + 1
        raise TooManyLogins("Wait before the next try.", {"Retry-After": str(seconds)})


async def forgive_attempt(write: WriteSession, email: str, address: str) -> None:
    """After the right password: only guesses count."""
    for origin in _origins(email, address):
        counted = update(LoginAttempts).where(LoginAttempts.origin == origin)
        await write.execute(counted.values(count=LoginAttempts.count - 1))


def _origins(email: str, address: str) -> dict[str, int]:
    return {
        f"account:{email} address:{address}": TRIES_PER_ACCOUNT_AND_ADDRESS,
        f"account:{email}": TRIES_PER_ACCOUNT,
        f"address:{address}": TRIES_PER_ADDRESS,
    }


async def _count(write: WriteSession, origin: str, allowed: int) -> timedelta:
    """How long to wait: nothing while the allowed tries last."""
    is_over = LoginAttempts.since < func.now() - WINDOW
    counting = (
        insert(LoginAttempts)
        .values(origin=origin)
        .on_conflict_do_update(
            index_elements=[LoginAttempts.origin],
            set_={
                "count": case((is_over, 1), else_=LoginAttempts.count + 1),
                "since": case((is_over, func.now()), else_=LoginAttempts.since),
            },
        )
        .returning(LoginAttempts.count, LoginAttempts.since)
    )
    count, since = (await write.execute(counting)).one()
    return since + WINDOW - datetime.now(UTC) if count > allowed else timedelta()


async def _delete_some_that_are_over(write: WriteSession) -> None:
    over = (
        select(LoginAttempts.origin)
        .where(LoginAttempts.since < func.now() - WINDOW)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    await write.execute(
        delete(LoginAttempts)
        .where(LoginAttempts.origin.in_(over))
        .execution_options(synchronize_session=False)
    )
