"""Changes to accounts: registration, login, passwords, staff rights."""

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends
from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy import event, select, update
from sqlalchemy.dialects.postgresql import insert

from app.accounts import passwords, queries, throttle
from app.accounts.models import Account
from app.accounts.schemas import AccountOut, Credentials, Email
from app.errors import AppError, Conflict, Forbidden, Unprocessable
from app.infra.database import WriteSession
from app.infra.sessions import CurrentUser, LoginNeeded, User, of_user
from app.settings import Settings

log = structlog.get_logger()


class EmailTaken(Conflict):
    """There is an account with this email address already"""


class WrongCredentials(AppError):
    """The email address or the password is wrong"""

    status = 401


class WrongPassword(Forbidden):
    """The current password is wrong"""


class SamePassword(Unprocessable):
    """The new password is the current one"""


class StaffOnly(Forbidden):
    """Only staff may do this"""


MaybeAccount = Annotated[AccountOut | None, Depends(of_user(queries.ACCOUNT_OF_USER))]


async def register(write: WriteSession, email: str, password: SecretStr) -> Account:
    """Raises EmailTaken and GuessablePassword."""
    password_hash = await passwords.hash_new(password, email, Settings().title)
    new = insert(Account).values(email=email, password_hash=password_hash)
    account: Account | None = await write.scalar(new.on_conflict_do_nothing().returning(Account))
    if account is None:
        raise EmailTaken
    log_when_stored(write, "registered", account.id)
    return account


async def authenticate(write: WriteSession, credentials: Credentials, address: str) -> Account:
    """Takes the same time whether the account exists or not.

    Raises WrongCredentials and TooManyLogins.
    """
    email, password = credentials.email, credentials.password
    account = await write.scalar(select(Account).where(Account.email == email))
    limits = throttle.limits_of(account, email, address)
    if not await _is_correct(write, account, password, address, limits) or account is None:
        raise WrongCredentials
    if not await _lock_if_unchanged(write, account):
        raise WrongCredentials
    log_when_stored(write, "login", account.id)
    return account


async def change_password(
    write: WriteSession, account_id: UUID, current: SecretStr, new: SecretStr, address: str
) -> None:
    """Raises WrongPassword, SamePassword, GuessablePassword and TooManyLogins."""
    account = await write.get(Account, account_id)
    if account is None:
        raise LoginNeeded
    limits = throttle.limits_of_logged_in(account.email)
    if not await _is_correct(write, account, current, address, limits):
        raise WrongPassword
    if new == current:
        raise SamePassword
    async with throttle.turn_of(address):
        password_hash = await passwords.hash_new(new, account.email, Settings().title)
    # Of two concurrent changes, the second fails: its current password is no longer current.
    if not await _lock_if_unchanged(write, account):
        raise WrongPassword
    changed = update(Account).where(Account.id == account_id)
    await write.execute(changed.values(password_hash=password_hash))
    log_when_stored(write, "password_changed", account_id)


async def promote(write: WriteSession, email: str, *, is_staff: bool = True) -> bool:
    """Gives or revokes staff rights. False if the account does not exist."""
    account = await account_called(write, email)
    if account is not None:
        account.is_staff = is_staff
        log_when_stored(write, "staff_given" if is_staff else "staff_revoked", account.id)
    return account is not None


async def account_called(write: WriteSession, email: str) -> Account | None:
    """The account with this e-mail, as an operator types it."""
    try:
        known = TypeAdapter[str](Email).validate_python(email)
    except ValidationError:  # No account can have such an e-mail.
        return None
    account: Account | None = await write.scalar(select(Account).where(Account.email == known))
    return account


async def require_staff(user: CurrentUser, write: WriteSession) -> User:
    """Raises StaffOnly. Asks the primary, because a late replica shows rights that were revoked."""
    if not await write.scalar(select(Account.is_staff).where(Account.id == user.id)):
        raise StaffOnly
    return user


Staff = Annotated[User, Depends(require_staff)]


async def _is_correct(
    write: WriteSession,
    account: Account | None,
    password: SecretStr,
    address: str,
    limits: throttle.Limits,
) -> bool:
    """Counts a wrong password as a guess. Commits. Raises TooManyLogins."""
    account_id = account.id if account else None
    await write.commit()  # hold no connection while waiting for a core
    # Each core checks and counts one guess before the next one, so parallel guesses count too.
    async with throttle.turn_of(address), passwords.ONE_PER_CORE:
        try:
            await throttle.check(write, limits)
        except throttle.TooManyLogins:
            _log_event("locked", account_id)
            raise
        await write.commit()
        if not await passwords.is_correct(password, account.password_hash if account else None):
            await throttle.count(write, limits)
            _log_event("login_failed", account_id)
            return False
    if account:
        await throttle.note_success(write, account, address)
        await write.commit()  # The password was right, even if a later step fails.
    return True


async def _lock_if_unchanged(write: WriteSession, account: Account) -> bool:
    """False if the password has changed since it was checked. Locks the row until the commit:
    a concurrent change of the password waits for this login, and then ends its session.

    Compares in Python, because Postgres logs slow statements with the values in WHERE."""
    locked = select(Account.password_hash).where(Account.id == account.id).with_for_update()
    return await write.scalar(locked) == account.password_hash


def log_when_stored(write: WriteSession, kind: str, account_id: UUID) -> None:
    """Logs a security event after the commit: if the commit fails, nothing has happened."""
    session = write.sync_session
    waiting = [kind]

    def log_once(_: object) -> None:
        # A savepoint ends here too, and may still be rolled back.
        if waiting and not session.in_nested_transaction():
            _log_event(waiting.pop(), account_id)

    event.listen(session, "after_commit", log_once)


def _log_event(kind: str, account_id: UUID | None) -> None:
    """Logs a security event, without personal data."""
    log.info("security", kind=kind, account_id=account_id)
