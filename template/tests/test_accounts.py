import asyncio

import argon2
import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from sqlalchemy import select, update

from app.accounts import passwords, throttle
from app.accounts.models import Account, LoginAttempts
from app.infra.database import Database
from tests.conftest import PASSWORD

ADA = {"email": "ada@example.com", "password": PASSWORD}


async def test_registering_logs_in(client: AsyncClient) -> None:
    answer = await client.post("/accounts", json={"email": "Ada@Example.com", "password": PASSWORD})

    assert answer.status_code == 201
    assert (await client.get("/me")).json() == {
        "id": answer.json()["id"],
        "email": "ada@example.com",
        "is_staff": False,
    }


async def test_an_email_address_registers_once(ada: AsyncClient, client: AsyncClient) -> None:
    answer = await client.post("/accounts", json={**ADA, "email": "ADA@example.com"})

    assert answer.status_code == 409
    assert answer.json()["title"] == "There is an account with this email address already"
    assert (await client.get("/me")).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_two_who_register_one_address_at_once_get_one_account(client: AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/accounts", json=ADA) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize("password", ["", "elevenchars", "x" * 129])
async def test_a_password_has_12_to_128_characters(client: AsyncClient, password: str) -> None:
    answer = await client.post("/accounts", json={**ADA, "password": password})

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["body.password"]
    assert "elevenchars" not in answer.text


async def test_the_password_is_stored_as_an_argon2id_hash(
    ada: AsyncClient, database: Database
) -> None:
    async with database.transaction() as write:
        stored = await write.scalar(select(Account.password_hash))

    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=7168,t=5,p=1$")


async def test_logging_out_ends_the_session_on_the_server(ada: AsyncClient) -> None:
    cookie = ada.cookies["__Host-session"]

    assert (await ada.delete("/session")).status_code == 204

    assert "__Host-session" not in ada.cookies
    ada.cookies.set("__Host-session", cookie)
    assert (await ada.get("/me")).status_code == 401


async def test_logging_in_again(ada: AsyncClient) -> None:
    await ada.delete("/session")

    assert (await ada.post("/session", json=ADA)).json()["email"] == "ada@example.com"
    assert (await ada.get("/me")).status_code == 200


async def test_a_token_replaces_the_cookie(ada: AsyncClient, client: AsyncClient) -> None:
    started = await client.post("/tokens", json=ADA)
    assert started.status_code == 201
    assert not client.cookies
    bearer = {"Authorization": f"Bearer {started.json()['token']}"}
    assert (await client.get("/me", headers=bearer)).json()["email"] == "ada@example.com"

    assert (await client.delete("/tokens/current", headers=bearer)).status_code == 204

    assert (await client.get("/me", headers=bearer)).status_code == 401
    assert (await ada.get("/me")).status_code == 200


async def test_a_token_survives_a_change_of_the_password(
    ada: AsyncClient, client: AsyncClient
) -> None:
    started = await client.post("/tokens", json=ADA)
    bearer = {"Authorization": f"Bearer {started.json()['token']}"}
    change = {"current_password": PASSWORD, "new_password": "another long password"}

    assert (await client.put("/me/password", json=change, headers=bearer)).status_code == 204

    assert (await client.get("/me", headers=bearer)).status_code == 200
    assert (await ada.get("/me")).status_code == 401


async def test_guessing_at_tokens_is_stopped(ada: AsyncClient, client: AsyncClient) -> None:
    wrong = {**ADA, "password": "not the password"}
    tries = range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1)
    answers = [await client.post("/tokens", json=wrong) for _ in tries]

    assert {answer.status_code for answer in answers[:-1]} == {401}
    assert answers[-1].status_code == 429


async def test_a_wrong_password_and_an_unknown_account_get_the_same_answer(
    ada: AsyncClient, client: AsyncClient
) -> None:
    wrong = await client.post("/session", json={**ADA, "password": "not her password"})
    unknown = await client.post("/session", json={**ADA, "email": "nobody@example.com"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert wrong.headers.keys() == unknown.headers.keys()


async def test_an_unknown_account_costs_the_same_hash(
    ada: AsyncClient, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, settings = argon2.PasswordHasher.verify, []

    def verify_and_note(self: argon2.PasswordHasher, password_hash: str, password: str) -> bool:
        settings.append(argon2.extract_parameters(password_hash))
        return verify(self, password_hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify_and_note)
    await client.post("/session", json={**ADA, "password": "a guess"})
    await client.post("/session", json={**ADA, "email": "nobody@example.com"})

    assert len(settings) == 2
    assert settings[0] == settings[1]


@pytest.mark.usefixtures("open_connections")
async def test_guessing_is_stopped_even_with_the_right_password(
    ada: AsyncClient, client: AsyncClient
) -> None:
    guess = {**ADA, "password": "a guess"}
    guesses = [
        client.post("/session", json=guess) for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS)
    ]
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {401}

    stopped = await client.post("/session", json=ADA)

    assert stopped.status_code == 429
    assert 0 < int(stopped.headers["retry-after"]) <= 15 * 60 + 1


async def test_guessing_one_account_leaves_the_others_alone(
    ada: AsyncClient, grace: AsyncClient, client: AsyncClient
) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
        await client.post("/session", json={**ADA, "password": "a guess"})

    answer = await client.post("/session", json={**ADA, "email": "grace@example.com"})

    assert answer.status_code == 200


async def test_one_address_cannot_guess_at_everybody(
    client: AsyncClient, database: Database
) -> None:
    async with database.transaction() as write:
        write.add(LoginAttempts(origin="address:127.0.0.1", count=throttle.TRIES_PER_ADDRESS))

    answer = await client.post("/session", json={**ADA, "email": "nobody@example.com"})

    assert answer.status_code == 429


async def test_guessing_is_forgiven_after_the_window(ada: AsyncClient, database: Database) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
        await ada.post("/session", json={**ADA, "password": "a guess"})
    async with database.transaction() as write:
        await write.execute(
            update(LoginAttempts).values(since=LoginAttempts.since - throttle.WINDOW)
        )

    assert (await ada.post("/session", json=ADA)).status_code == 200


async def test_attempts_that_are_over_do_not_pile_up(
    client: AsyncClient, database: Database
) -> None:
    await client.post("/session", json={**ADA, "email": "one@example.com"})
    async with database.transaction() as write:
        await write.execute(
            update(LoginAttempts).values(since=LoginAttempts.since - throttle.WINDOW * 2)
        )

    await client.post("/session", json={**ADA, "email": "two@example.com"})

    async with database.transaction() as write:
        origins = set(await write.scalars(select(LoginAttempts.origin)))
    assert origins == {
        "account:two@example.com address:127.0.0.1",
        "account:two@example.com",
        "address:127.0.0.1",
    }


async def test_changing_the_password_keeps_this_device_and_logs_out_the_others(
    ada: AsyncClient, client: AsyncClient
) -> None:
    await client.post("/session", json=ADA)
    new = "a new and longer password"

    changed = await ada.put(
        "/me/password", json={"current_password": PASSWORD, "new_password": new}
    )

    assert changed.status_code == 204
    assert (await ada.get("/me")).status_code == 200
    assert (await client.get("/me")).status_code == 401
    assert (await client.post("/session", json=ADA)).status_code == 401
    assert (await client.post("/session", json={**ADA, "password": new})).status_code == 200


async def test_changing_the_password_needs_the_current_one(ada: AsyncClient) -> None:
    change = {"current_password": "a guess", "new_password": "a new and longer password"}

    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert (await ada.put("/me/password", json=change)).status_code == 403
    assert (await ada.put("/me/password", json=change)).status_code == 429
    assert (await ada.get("/me")).status_code == 200


async def test_right_passwords_do_not_count_as_guesses(
    ada: AsyncClient, database: Database
) -> None:
    for _ in range(3):
        assert (await ada.post("/session", json=ADA)).status_code == 200

    async with database.transaction() as write:
        assert set(await write.scalars(select(LoginAttempts.count))) == {0}


async def test_guesses_from_many_addresses_are_stopped_too(
    ada: AsyncClient, client: AsyncClient, database: Database
) -> None:
    async with database.transaction() as write:
        origin = "account:ada@example.com"
        write.add(LoginAttempts(origin=origin, count=throttle.TRIES_PER_ACCOUNT))

    assert (await client.post("/session", json=ADA)).status_code == 429


async def test_a_login_with_the_old_password_does_not_outlive_its_change(
    ada: AsyncClient, client: AsyncClient
) -> None:
    is_correct, verified, changed = passwords.is_correct, asyncio.Event(), asyncio.Event()

    async def wait_for_the_change(password: SecretStr, password_hash: str | None) -> bool:
        correct = await is_correct(password, password_hash)
        verified.set()
        await changed.wait()
        return correct

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "is_correct", wait_for_the_change)
        logging_in = asyncio.create_task(client.post("/session", json=ADA))
        await verified.wait()
    change = {"current_password": PASSWORD, "new_password": "a new and longer password"}
    assert (await ada.put("/me/password", json=change)).status_code == 204
    changed.set()

    assert (await logging_in).status_code == 401
    assert (await client.get("/me")).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_of_two_password_changes_at_once_one_wins(ada: AsyncClient) -> None:
    changes = [
        {"current_password": PASSWORD, "new_password": f"the new password, {n}"} for n in range(2)
    ]

    answers = await asyncio.gather(*(ada.put("/me/password", json=change) for change in changes))

    assert sorted(answer.status_code for answer in answers) == [204, 403]


@pytest.mark.parametrize("path", ["/accounts", "/session"])
async def test_a_password_of_half_a_character_is_refused(client: AsyncClient, path: str) -> None:
    half = b'{"email": "ada@example.com", "password": "twelve and \\ud800"}'

    answer = await client.post(path, content=half, headers={"content-type": "application/json"})

    assert answer.status_code == 422
