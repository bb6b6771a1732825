# Rung's file: advancing to another stage may change it.
"""Signatures and their keys."""

import secrets

import pytest
from pydantic import SecretStr

from app.infra import environment
from app.infra.signing import Signer, SigningSettings

SIGNER = Signer(SecretStr("a key with at least 32 characters"))


def test_a_signature_is_valid_for_the_signed_values() -> None:
    assert SIGNER.is_valid(SIGNER.sign("file", "GET", "a"), "file", "GET", "a")


def test_a_signature_is_not_valid_for_another_purpose() -> None:
    assert not SIGNER.is_valid(SIGNER.sign("file", "a"), "session", "a")


def test_the_same_text_split_into_other_parts_has_another_signature() -> None:
    assert not SIGNER.is_valid(SIGNER.sign("file", "ab", "c"), "file", "a", "bc")


def test_a_signature_with_another_key_is_not_valid() -> None:
    other = Signer(SecretStr("another key, just as long as that"))

    assert not other.is_valid(SIGNER.sign("file", "a"), "file", "a")


def test_the_previous_key_is_accepted_and_signs_nothing() -> None:
    old, new = SecretStr("the key of last year, long enough"), SecretStr("a newer key, long enough")
    rolled = Signer(new, old)

    assert rolled.is_valid(Signer(old).sign("file", "a"), "file", "a")
    assert rolled.sign("file", "a") == Signer(new).sign("file", "a")
    assert not Signer(new).is_valid(Signer(old).sign("file", "a"), "file", "a")


@pytest.mark.parametrize(
    "key",
    [
        "x" * 32,
        "changeme" * 4,
        "Change-Me please, change me please",
        "0123456789abcdef0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz123456",
        "only-for-docker-compose-on-a-laptop",
    ],
)
@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_PREVIOUS"])
def test_a_key_that_is_easy_to_guess_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    """Also a previous one, because its signatures are accepted."""
    monkeypatch.setenv("SECRET_KEY", secrets.token_hex(16))
    monkeypatch.setenv(name, key)
    with pytest.raises(environment.EnvironmentIncomplete, match=rf"{name}: .*easy to guess"):
        environment.read(SigningSettings)

    monkeypatch.setenv("SECRET_KEY_IS_PUBLIC", "true")
    assert getattr(environment.read(SigningSettings), name.lower()).get_secret_value() == key


def test_random_keys_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(200):
        for key in (secrets.token_hex(16), secrets.token_urlsafe(24)):
            monkeypatch.setenv("SECRET_KEY", key)
            environment.read(SigningSettings)
