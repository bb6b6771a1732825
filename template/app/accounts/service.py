from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from app.accounts import passwords, queries, throttle
from app.accounts.models import Account
from app.accounts.schemas import Credentials
from app.errors import AppError, Conflict, Forbidden
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser, LoginNeeded, User


class EmailTaken(Conflict):
    """There is an account with this email address already"""


class WrongCredentials(AppError):
    """The email address or the password is wrong"""

    status = 401


class WrongPassword(Forbidden):
    """The current password is wrong"""


class StaffOnly(Forbidden):
    """Only staff may do this"""


async def register(write: WriteSession, email: str, password: SecretStr) -> Account:
    """Raises EmailTaken."""
    password_hash = await passwords.hash_password(password)
    new = insert(Account).values(email=email, password_hash=password_hash)
    account: Account | None = await write.scalar(new.on_conflict_do_nothing().returning(Account))
    if account is None:
        raise EmailTaken
    return account


async def authenticate(write: WriteSession, credentials: Credentials, address: str) -> Account:
    """Raises WrongCredentials, after the same time whether there is such an account or not, and
    TooManyLogins."""
    await throttle.count_attempt(write, credentials.email, address)
    account = await write.scalar(select(Account).where(Account.email == credentials.email))
    # Nothing is read or locked meanwhile, so the connection goes back while the hash is computed.
    await write.commit()
    password_hash = account.password_hash if account else None
    if not await passwords.is_correct(credentials.password, password_hash) or account is None:
        raise WrongCredentials
    await throttle.forgive_attempt(write, credentials.email, address)
    if not await _hash_is_still(write, account):
        raise WrongCredentials
    return account


async def change_password(
    write: WriteSession, account_id: UUID, current: SecretStr, new: SecretStr, address: str
) -> None:
    """Raises WrongPassword and TooManyLogins."""
    account = await write.get(Account, account_id)
    if account is None:
        raise LoginNeeded
    await throttle.count_attempt(write, account.email, address)
    if not await passwords.is_correct(current, account.password_hash):
        raise WrongPassword
    await throttle.forgive_attempt(write, account.email, address)
    await write.commit()
    password_hash = await passwords.hash_password(new)
    changed = await write.execute(
        update(Account)
        # Two changes at once: the second one's current password is no longer the current one.
        .where(Account.id == account_id, Account.password_hash == account.password_hash)
        .values(password_hash=password_hash)
        .returning(Account.id)
    )
    if changed.first() is None:
        raise WrongPassword


async def promote(write: WriteSession, email: str) -> bool:
    """Makes an account staff; false when there is none."""
    promoted = update(Account).where(Account.email == email.lower()).values(is_staff=True)
    return (await write.execute(promoted.returning(Account.id))).first() is not None


async def require_staff(read: ReadSession, user: CurrentUser) -> User:
    """Raises StaffOnly. Asks Postgres each time: who was staff yesterday need not be today."""
    account = await queries.account_by_id(read, user.id)
    if account is None or not account.is_staff:
        raise StaffOnly
    return user


Staff = Annotated[User, Depends(require_staff)]


async def _hash_is_still(write: WriteSession, account: Account) -> bool:
    """Whether the password was not changed while its hash was computed. The lock makes a change
    wait until the login is committed, whose session it then ends."""
    same = (Account.id == account.id) & (Account.password_hash == account.password_hash)
    found = await write.scalar(select(Account.id).where(same).with_for_update(read=True))
    return found is not None
