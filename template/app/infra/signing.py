# Rung's file: advancing to another stage may change it.
import hmac

from fastapi import FastAPI, Request
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from app.infra import environment


class SigningSettings(BaseSettings):
    secret_key: SecretStr = Field(min_length=32)


class Signer:
    """Signs what a client carries for us, so that it comes back as it was.

    A signature is good for one purpose only: the key is mixed with it. Changing SECRET_KEY
    voids every signature at once.
    """

    def __init__(self, secret_key: SecretStr) -> None:
        self._secret_key = secret_key.get_secret_value().encode()

    def sign(self, purpose: str, *parts: object) -> str:
        # Each part's length goes in, so that ("ab", "c") and ("a", "bc") differ.
        message = "".join(f"{len(text)}:{text}" for text in map(str, (purpose, *parts)))
        return hmac.digest(self._secret_key, message.encode(), "sha256").hex()

    def is_valid(self, signature: str, purpose: str, *parts: object) -> bool:
        # Bytes, because compare_digest refuses text that is not ASCII.
        return hmac.compare_digest(signature.encode(), self.sign(purpose, *parts).encode())


def install(app: FastAPI) -> None:
    app.state.signer = Signer(environment.read(SigningSettings).secret_key)


def signer_of(request: Request) -> Signer:
    signer: Signer = request.app.state.signer
    return signer
