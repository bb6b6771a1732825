# Rung's file: advancing to another stage may change it.
"""Signs data that clients store for the app, so that they cannot change it."""

import hmac
import zlib
from itertools import pairwise
from typing import Annotated

from fastapi import FastAPI
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings

from app.infra import environment

# Words that occur in example keys.
_PUBLISHED = (
    *("changeme", "changethis", "dockercompose", "example", "insecure", "placeholder"),
    *("replaceme", "replacethis", "yoursecret"),
)


def _hard_to_guess(key: SecretStr, info: ValidationInfo) -> SecretStr:
    if not info.data.get("secret_key_is_public") and _is_guessable(key.get_secret_value()):
        raise ValueError(
            "it is easy to guess. Make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return key


def _is_guessable(key: str) -> bool:
    letters = "".join(filter(str.isalnum, key.lower()))
    steps = {ord(second) - ord(first) for first, second in pairwise(key)}
    is_monotonous = min(len(set(key)), len(steps)) < 8 or len(zlib.compress(key.encode(), 9)) < 30
    return is_monotonous or any(published in letters for published in _PUBLISHED)


Key = Annotated[SecretStr, Field(min_length=32), AfterValidator(_hard_to_guess)]


class SigningSettings(BaseSettings):
    """To change the key without refusing a signature: first set the new key as SECRET_KEY_PREVIOUS
    on all copies, so that they accept both. Then swap the two. Then remove the old one."""

    # For a laptop, where the key may be in a public file.
    secret_key_is_public: bool = False
    secret_key: Key
    secret_key_previous: Key | None = None


class Signer:
    """Signs with one key, and accepts signatures of the previous one too.

    A signature is valid for one purpose only, because the purpose is part of the signed data.
    """

    def __init__(self, secret_key: SecretStr, previous: SecretStr | None = None) -> None:
        self._keys = [key.get_secret_value().encode() for key in (secret_key, previous) if key]

    def sign(self, purpose: str, *parts: object) -> str:
        return _signature(self._keys[0], purpose, *parts)

    def is_valid(self, signature: str, purpose: str, *parts: object) -> bool:
        # Bytes, because compare_digest refuses text that is not ASCII.
        given = signature.encode()
        return any(
            hmac.compare_digest(given, _signature(key, purpose, *parts).encode())
            for key in self._keys
        )


def _signature(key: bytes, *parts: object) -> str:
    # Each part's length is signed too, so that ("ab", "c") and ("a", "bc") differ.
    message = "".join(f"{len(text)}:{text}" for text in map(str, parts))
    return hmac.digest(key, message.encode(), "sha256").hex()


def install(app: FastAPI) -> None:
    settings = environment.read(SigningSettings)
    app.state.signer = Signer(settings.secret_key, settings.secret_key_previous)
