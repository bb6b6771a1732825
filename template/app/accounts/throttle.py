"""Limits password guesses and registrations.

Only a wrong password counts as a guess, and a registration counts against its address. A refused
request does not count, so an attacker cannot keep somebody else locked out.
"""

import asyncio
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from weakref import WeakValueDictionary

from sqlalchemy import case, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.accounts.models import Account, LoginAttempts
from app.errors import AppError
from app.infra.database import WriteSession

WINDOW = timedelta(minutes=15)
TRIES_PER_ACCOUNT_AND_ADDRESS = 10
TRIES_PER_ACCOUNT = 100  # higher, because otherwise ten guesses would lock an account
TRIES_PER_ADDRESS = 100  # higher, because an office shares one address
KNOWN_ADDRESSES = 20  # for each account


_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


class TooManyLogins(AppError):
    """Too many attempts"""

    status = 429


def network_of(address: str) -> str:
    """A client has a whole IPv6 /64, so that network counts as one address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "unknown"
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(ip.ipv4_mapped or ip_network((int(ip), 64), strict=False))


def turn_of(address: str) -> asyncio.Lock:
    """Held while a password is hashed, so that one address never takes every core."""
    return _locks.setdefault(address, asyncio.Lock())  # per copy: each copy has its own cores


async def check_login(
    write: WriteSession,
    account: Account | None,
    email: str,
    address: str,
    *,
    is_logged_in: bool = False,
) -> None:
    """Raises TooManyLogins. At an address where the account has logged in before, only guesses at
    this account from this address count. For a person who is logged in, only guesses of people who
    are logged in to this account count."""
    limits = _limits(email, address, is_logged_in)
    if account and not is_logged_in and address in account.known_addresses:
        limits = {_pair(email, address): TRIES_PER_ACCOUNT_AND_ADDRESS}
    await _check(write, limits)


async def count_guess(
    write: WriteSession, email: str, address: str, *, is_logged_in: bool = False
) -> None:
    """Commits."""
    await _count(write, *_limits(email, address, is_logged_in))
    await write.commit()


async def note_success(write: WriteSession, account: Account, address: str) -> None:
    """Deletes the guesses from this address and those of the person who is logged in. Adds the
    address to the known ones."""
    origins = _pair(account.email, address), _logged_in(account.email)
    await write.execute(delete(LoginAttempts).where(LoginAttempts.origin.in_(origins)))
    if address not in account.known_addresses:
        account.known_addresses = [address, *account.known_addresses][:KNOWN_ADDRESSES]


async def count_registration(write: WriteSession, address: str) -> None:
    """Commits. Raises TooManyLogins."""
    origin = f"address:{address}"
    await _check(write, {origin: TRIES_PER_ADDRESS})
    await _count(write, origin)
    await write.commit()


async def unlock(write: WriteSession, email: str) -> None:
    """Deletes all guesses at an account, from any address."""
    at_account = LoginAttempts.origin == f"account:{email}"
    from_anywhere = LoginAttempts.origin.startswith(f"account:{email} ", autoescape=True)
    # First the row that each guess locks first, so that the two never wait for each other.
    for guesses in (at_account, from_anywhere):
        await write.execute(
            delete(LoginAttempts).where(guesses).execution_options(synchronize_session=False)
        )


def _limits(email: str, address: str, is_logged_in: bool) -> dict[str, int]:
    if is_logged_in:
        return {_logged_in(email): TRIES_PER_ACCOUNT_AND_ADDRESS}
    return {
        _pair(email, address): TRIES_PER_ACCOUNT_AND_ADDRESS,
        f"account:{email}": TRIES_PER_ACCOUNT,
        f"address:{address}": TRIES_PER_ADDRESS,
    }


def _pair(email: str, address: str) -> str:
    return f"account:{email} address:{address}"


def _logged_in(email: str) -> str:
    return f"account:{email} logged in"


async def _check(write: WriteSession, limits: dict[str, int]) -> None:
    # Postgres' time, because the clock here may be wrong.
    counted = select(LoginAttempts, func.now()).where(
        LoginAttempts.origin.in_(limits), LoginAttempts.since > func.now() - WINDOW
    )
    waits = [
        one.since + WINDOW - now
        for one, now in await write.execute(counted)
        if one.count >= limits[one.origin]
    ]
    if waits:
        seconds = int(max(waits).total_seconds()) + 1
        raise TooManyLogins("Wait before the next try.", {"Retry-After": str(seconds)})


async def _count(write: WriteSession, *origins: str) -> None:
    is_over = LoginAttempts.since < func.now() - WINDOW
    # Sorted, so that two transactions never wait for each other's rows.
    counting = insert(LoginAttempts).values([{"origin": origin} for origin in sorted(origins)])
    await write.execute(
        counting.on_conflict_do_update(
            index_elements=[LoginAttempts.origin],
            set_={
                "count": case((is_over, 1), else_=LoginAttempts.count + 1),
                "since": case((is_over, func.now()), else_=LoginAttempts.since),
            },
        )
    )
    over = select(LoginAttempts.origin).where(is_over).limit(100).with_for_update(skip_locked=True)
    await write.execute(
        delete(LoginAttempts)
        .where(LoginAttempts.origin.in_(over))
        .execution_options(synchronize_session=False)
    )
