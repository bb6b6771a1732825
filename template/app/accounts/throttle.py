from datetime import UTC, datetime, timedelta

from sqlalchemy import case, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.accounts.models import LoginAttempts
from app.errors import AppError
from app.infra.database import WriteSession

WINDOW = timedelta(minutes=15)
TRIES_PER_ACCOUNT = 10
TRIES_PER_ADDRESS = 100  # an office shares one


class TooManyLogins(AppError):
    """Too many attempts to log in"""

    status = 429


async def count_attempt(write: WriteSession, email: str, address: str) -> None:
    """Counts before the password is looked at, so that parallel guesses count too.

    Commits. Raises TooManyLogins.
    """
    # In one order for everybody, so that two attempts never wait for each other's rows.
    attempts = [
        await _count(write, f"account:{email}", TRIES_PER_ACCOUNT),
        await _count(write, f"address:{address}", TRIES_PER_ADDRESS),
    ]
    await write.commit()
    if any(wait := [wait for wait in attempts if wait]):
        seconds = int(max(wait).total_seconds()) + 1
        raise TooManyLogins("Wait before the next try.", {"Retry-After": str(seconds)})


async def forget_attempts(write: WriteSession, email: str) -> None:
    """After a login. The address stays counted: one good account must not excuse guesses at
    others."""
    await write.execute(delete(LoginAttempts).where(LoginAttempts.origin == f"account:{email}"))


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
    if count == 1:
        await _delete_some_that_are_over(write)
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
