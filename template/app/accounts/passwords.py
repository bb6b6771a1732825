"""Hashes passwords, and refuses those that are easy to guess."""

import asyncio
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import anyio
import argon2
from pydantic import SecretStr
from zxcvbn_rs_py import zxcvbn

from app.errors import Unprocessable

# OWASP lists equally strong settings for Argon2id. This one needs the least memory: 7 MiB, 40 ms.
HASHER = argon2.PasswordHasher(time_cost=5, memory_cost=7 * 1024, parallelism=1)

# More than one hash per core would not be faster, and would need more memory.
ONE_PER_CORE = anyio.CapacityLimiter(os.process_cpu_count() or 1)


def _let_others_go_first() -> None:
    """A hash must not delay other people's requests."""
    if sys.platform == "linux":  # elsewhere nice() changes the whole process
        with suppress(OSError):  # a sandbox may refuse it
            os.nice(10)


_HASHING = ThreadPoolExecutor(os.process_cpu_count() or 1, "hash", _let_others_go_first)

# Verified when the account does not exist, so that both answers take the same time: a salt and a
# hash of zeros. Making a real one would delay each start by 40 ms.
_NOBODYS_HASH = (
    f"$argon2id$v=19$m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}"
    f"${'A' * 22}${'A' * 43}"
)

_FEWEST_GUESSES = 10**8

# zxcvbn takes 0.2 ms for this many characters, and 22 ms for the worst mix of symbols (24: 80 ms).
# Other requests wait.
_JUDGED_CHARACTERS = 18


class GuessablePassword(Unprocessable):
    """The password is too easy to guess"""


async def hash_new(password: SecretStr, *context: str) -> str:
    """Raises GuessablePassword. `context`: texts that an attacker tries first (e-mail, product)."""
    known = [*context, *re.findall(r"[^@\s]+", " ".join(context))]
    known += re.findall(r"\w{3,}", " ".join(context))
    # Of each text the same number of characters, so that a long e-mail is known as a password too.
    judged, *known = (text[:_JUDGED_CHARACTERS] for text in (password.get_secret_value(), *known))
    if zxcvbn(judged, user_inputs=known).guesses < _FEWEST_GUESSES:
        raise GuessablePassword("Use several words that nobody would expect together.")
    async with ONE_PER_CORE:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_HASHING, HASHER.hash, password.get_secret_value())


async def is_correct(password: SecretStr, password_hash: str | None) -> bool:
    """False if the account does not exist (password_hash is None), or if an operator closed it with
    text that is no hash, such as `!`. Both take the same time as a wrong password.

    The caller holds ONE_PER_CORE.
    """
    try:
        argon2.extract_parameters(password_hash or "")
    except argon2.exceptions.InvalidHashError:
        password_hash = None

    def verify() -> bool:
        try:
            return HASHER.verify(password_hash or _NOBODYS_HASH, password.get_secret_value())
        except argon2.exceptions.VerificationError:
            return False

    is_equal = await asyncio.get_running_loop().run_in_executor(_HASHING, verify)
    return is_equal and password_hash is not None
