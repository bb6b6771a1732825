import os

import anyio
import argon2
from pydantic import SecretStr

# Of OWASP's equally strong settings for Argon2id the one that needs least memory: 7 MiB, 40 ms.
_HASHER = argon2.PasswordHasher(time_cost=5, memory_cost=7 * 1024, parallelism=1)

# One attempt a core: more would only queue inside the processor and hold memory meanwhile.
_ONE_A_CORE = anyio.CapacityLimiter(os.process_cpu_count() or 1)

# For accounts that do not exist, so that they take as long as those that do.
_NOBODYS_HASH = _HASHER.hash(os.urandom(16).hex())


async def hash_password(password: SecretStr) -> str:
    return await anyio.to_thread.run_sync(
        _HASHER.hash, password.get_secret_value(), limiter=_ONE_A_CORE
    )


async def is_correct(password: SecretStr, password_hash: str | None) -> bool:
    """Takes as long, and is false, when there is no account: its hash is None."""

    def verify() -> bool:
        try:
            return _HASHER.verify(password_hash or _NOBODYS_HASH, password.get_secret_value())
        except argon2.exceptions.VerifyMismatchError:
            return False

    matches = await anyio.to_thread.run_sync(verify, limiter=_ONE_A_CORE)
    return matches and password_hash is not None
