"""Limits password guesses and registrations.

Only a wrong password counts as a guess, and a registration counts against its address. A refused
request does not count, so an attacker cannot keep somebody else locked out.
"""

import asyncio
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from math import inf
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


type Limits = dict[str, float]  # the most guesses, by their origin


def limits_of(account: Account | None, email: str, address: str) -> Limits:
    """At an address where the account has logged in before, only the guesses at this account from
    this address are limited. The others are still counted."""
    is_known = account is not None and address in account.known_addresses
    return {
        _pair(email, address): TRIES_PER_ACCOUNT_AND_ADDRESS,
        f"account:{email}": inf if is_known else TRIES_PER_ACCOUNT,
        f"address:{address}": inf if is_known else TRIES_PER_ADDRESS,
    }


def limits_of_logged_in(email: str) -> Limits:
    """Only guesses of people who are logged in to this account count."""
    return {_logged_in(email): TRIES_PER_ACCOUNT_AND_ADDRESS}


async def check(write: WriteSession, limits: Limits) -> None:
    """Raises TooManyLogins."""
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


async def count(write: WriteSession, limits: Limits) -> None:
    """Counts one guess at each origin. Commits."""
    is_over = LoginAttempts.since < func.now() - WINDOW
    # Sorted, so that two transactions never wait for each other's rows.
    counting = insert(LoginAttempts).values([{"origin": origin} for origin in sorted(limits)])
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
    limits: Limits = {f"address:{address}": TRIES_PER_ADDRESS}
    await check(write, limits)
    await count(write, limits)


async def unlock(write: WriteSession, email: str) -> None:
    """Deletes all guesses at an account, from any address."""
    at_account = LoginAttempts.origin == f"account:{email}"
    from_anywhere = LoginAttempts.origin.startswith(f"account:{email} ", autoescape=True)
    # First the row that each guess locks first, so that the two never wait for each other.
    for guesses in (at_account, from_anywhere):
        await write.execute(
            delete(LoginAttempts).where(guesses).execution_options(synchronize_session=False)
        )


def _pair(email: str, address: str) -> str:
    return f"account:{email} address:{address}"


def _logged_in(email: str) -> str:
    return f"account:{email} logged in"
