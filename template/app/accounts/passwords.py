"""Hashes passwords, and refuses those that are easy to guess."""

import os
import re

import anyio
import argon2
from pydantic import SecretStr
from zxcvbn import zxcvbn

from app.errors import Unprocessable

# OWASP lists equally strong settings for Argon2id. This one needs the least memory: 7 MiB, 40 ms.
HASHER = argon2.PasswordHasher(time_cost=5, memory_cost=7 * 1024, parallelism=1)

# More than one hash per core would not be faster, and would need more memory.
ONE_PER_CORE = anyio.CapacityLimiter(os.process_cpu_count() or 1)

# Checked when the account does not exist, so that both answers take the same time.
_NOBODYS_HASH = HASHER.hash(os.urandom(16).hex())

# zxcvbn takes up to 40 ms for this many characters, and far longer for more.
_JUDGED_CHARACTERS = 24


class GuessablePassword(Unprocessable):
    """The password is too easy to guess"""


async def hash_new(password: SecretStr, *context: str) -> str:
    """Raises GuessablePassword. `context`: texts that an attacker tries first (e-mail, product)."""

    known = [*context, *re.findall(r"[^@\s]+", " ".join(context))]
    known += re.findall(r"\w{3,}", " ".join(context))

    def judge_and_hash() -> str:
        judged = password.get_secret_value()[:_JUDGED_CHARACTERS]
        if zxcvbn(judged, user_inputs=known)["score"] < 3:  # fewer than 10^8 guesses
            raise GuessablePassword("Use several words that nobody would expect together.")
        return HASHER.hash(password.get_secret_value())

    return await anyio.to_thread.run_sync(judge_and_hash, limiter=ONE_PER_CORE)


async def is_correct(password: SecretStr, password_hash: str | None) -> bool:
    """False if the account does not exist (password_hash is None). That takes the same time.

    The caller holds ONE_PER_CORE.
    """

    def verify() -> bool:
        try:
            return HASHER.verify(password_hash or _NOBODYS_HASH, password.get_secret_value())
        except argon2.exceptions.VerifyMismatchError:
            return False

    return await anyio.to_thread.run_sync(verify) and password_hash is not None
