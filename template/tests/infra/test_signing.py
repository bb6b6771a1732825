# Rung's file: advancing to another stage may change it.
from pydantic import SecretStr

from app.infra.signing import Signer

SIGNER = Signer(SecretStr("a key with at least 32 characters"))


def test_a_signature_is_good_for_what_was_signed() -> None:
    assert SIGNER.is_valid(SIGNER.sign("file", "GET", "a"), "file", "GET", "a")


def test_a_signature_is_good_for_one_purpose() -> None:
    assert not SIGNER.is_valid(SIGNER.sign("file", "a"), "session", "a")


def test_parts_cannot_be_shifted() -> None:
    assert not SIGNER.is_valid(SIGNER.sign("file", "ab", "c"), "file", "a", "bc")


def test_another_key_makes_another_signature() -> None:
    other = Signer(SecretStr("another key, just as long as that"))

    assert not other.is_valid(SIGNER.sign("file", "a"), "file", "a")
