import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import unicodedata
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import anyio
import argon2
import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy import Select, select, text, update
from structlog.testing import capture_logs

from app.accounts import log_out, passwords, promote, service, throttle, unlock
from app.accounts.models import Account, LoginAttempts
from app.infra.database import Database, WriteSession
from app.infra.failures import Unavailable
from dev.pytest_plugin import Services
from tests.conftest import PASSWORD, WAITING_FOR_A_LOCK
from tests.test_openapi import assert_answers_as_described, serving

ADA = {"email": "ada@example.com", "password": PASSWORD}
A_GUESS = {**ADA, "password": "a guess"}
JSON = {"content-type": "application/json"}

# Each of these paths ends or replaces the session that the other paths need.
SESSION_PATHS = ["/accounts", "/session", "/tokens", "/tokens/current", "/me/sessions"]


async def log_in_from(app: FastAPI, address: str, credentials: dict[str, str]) -> int:
    """Logs in from an IP address; answers with the status."""
    transport = ASGITransport(app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="https://shop.test") as client:
        return (await client.post("/session", json=credentials)).status_code


async def guesses(database: Database) -> dict[str, int]:
    async with database.transaction() as write:
        return {one.origin: one.count for one in await write.scalars(select(LoginAttempts))}


async def test_registering_logs_in(client: AsyncClient) -> None:
    answer = await client.post("/accounts", json={"email": "Ada@Example.com", "password": PASSWORD})

    assert answer.status_code == 201
    assert (await client.get("/me")).json() == {
        "id": answer.json()["id"],
        "email": "ada@example.com",
        "is_staff": False,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
async def test_a_hash_does_not_delay_other_peoples_requests(ada: AsyncClient) -> None:
    hashing = [thread for thread in threading.enumerate() if thread.name.startswith("hash_")]

    assert hashing
    for thread in hashing:
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) >= 10


async def test_an_email_address_registers_once(ada: AsyncClient, client: AsyncClient) -> None:
    answer = await client.post("/accounts", json={**ADA, "email": "ADA@example.com"})

    assert answer.status_code == 409
    assert answer.json()["title"] == "There is an account with this email address already"
    assert (await client.get("/me")).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_concurrent_registrations_of_one_email_create_one_account(
    client: AsyncClient,
) -> None:
    answers = await asyncio.gather(*(client.post("/accounts", json=ADA) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize("password", ["", "elevenchars", "x" * 129])
async def test_a_password_has_12_to_128_characters(client: AsyncClient, password: str) -> None:
    answer = await client.post("/accounts", json={**ADA, "password": password})

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["body.password"]
    assert "elevenchars" not in answer.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"password": "elevenchars"}, "Use at least 12 characters"),
        ({"password": "x" * 129}, "Use at most 128 characters"),
        ({"email": "ada"}, "Write an e-mail address, such as ada@example.com"),
        ({"email": "\u212a@example.com"}, "Write an e-mail address, such as ada@example.com"),
    ],
)
async def test_the_error_of_a_wrong_email_says_what_to_write(
    client: AsyncClient, given: dict[str, str], message: str
) -> None:
    answer = await client.post("/accounts", json={**ADA, **given})

    assert [error["message"] for error in answer.json()["errors"]] == [message]


@pytest.mark.parametrize(
    "email",
    [
        *("eve,ada@example.com", "eve@evil.test;ada.example.com", "eve@evil.test(.example.com)"),
        *("eve<ada@example.com>", '"ada"@example.com', "=?utf-8?q?eve=40evil.test=2c?=@shop.test"),
    ],
)
async def test_text_that_mail_software_reads_as_another_address_is_refused(
    client: AsyncClient, email: str
) -> None:
    answer = await client.post("/accounts", json={**ADA, "email": email})

    assert answer.status_code == 422


@pytest.mark.parametrize(
    "email", ["o'brien+news@example.com", "bounce=ada_1@mail.example.com", "ada@localhost"]
)
async def test_an_unusual_address_registers(client: AsyncClient, email: str) -> None:
    assert (await client.post("/accounts", json={**ADA, "email": email})).status_code == 201


@pytest.mark.usefixtures("strong_hashes")
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


async def test_a_person_logs_in_again_after_logging_out(ada: AsyncClient) -> None:
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


async def test_guessing_a_password_for_a_token_is_stopped(
    ada: AsyncClient, client: AsyncClient
) -> None:
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


@pytest.mark.usefixtures("strong_hashes")
async def test_an_unknown_account_costs_the_same_hash_as_a_known_one(
    ada: AsyncClient, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, settings = argon2.PasswordHasher.verify, []

    def verify_and_note(self: argon2.PasswordHasher, password_hash: str, password: str) -> bool:
        settings.append(argon2.extract_parameters(password_hash))
        return verify(self, password_hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify_and_note)
    await client.post("/session", json=A_GUESS)
    await client.post("/session", json={**ADA, "email": "nobody@example.com"})

    assert len(settings) == 2
    assert settings[0] == settings[1]


@pytest.mark.parametrize("closed", ["", "!", "*", "$2b$12$abcdefghijklmnopqrstuv"])
async def test_an_account_whose_hash_an_operator_replaced_is_closed(
    ada: AsyncClient, client: AsyncClient, database: Database, closed: str
) -> None:
    async with database.transaction() as write:
        await write.execute(update(Account).values(password_hash=closed))

    assert (await client.post("/session", json=ADA)).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_guessing_is_stopped_even_with_the_right_password(
    ada: AsyncClient, client: AsyncClient
) -> None:
    tries = [
        client.post("/session", json=A_GUESS) for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS)
    ]
    assert {answer.status_code for answer in await asyncio.gather(*tries)} == {401}

    stopped = await client.post("/session", json=ADA)

    assert stopped.status_code == 429
    assert 0 < int(stopped.headers["retry-after"]) <= 15 * 60 + 1


async def test_a_refusal_says_when_the_window_ends_even_if_the_clock_here_is_wrong(
    ada: AsyncClient, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnHourAhead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(throttle, "datetime", AnHourAhead, raising=False)
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
        await client.post("/session", json=A_GUESS)

    stopped = await client.post("/session", json=ADA)

    assert stopped.status_code == 429
    assert 10 * 60 < int(stopped.headers["retry-after"]) <= 15 * 60 + 1


async def test_guessing_at_one_account_does_not_limit_the_others(
    ada: AsyncClient, grace: AsyncClient, client: AsyncClient
) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
        await client.post("/session", json=A_GUESS)

    answer = await client.post("/session", json={**ADA, "email": "grace@example.com"})

    assert answer.status_code == 200


async def test_one_address_cannot_guess_at_everybody(
    client: AsyncClient, database: Database
) -> None:
    async with database.transaction() as write:
        write.add(LoginAttempts(origin="address:127.0.0.1", count=throttle.TRIES_PER_ADDRESS))

    answer = await client.post("/session", json={**ADA, "email": "nobody@example.com"})

    assert answer.status_code == 429
    assert (await client.post("/accounts", json=ADA)).status_code == 429


async def test_wrong_guesses_expire_after_the_window(ada: AsyncClient, database: Database) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
        await ada.post("/session", json=A_GUESS)
    async with database.transaction() as write:
        await write.execute(
            update(LoginAttempts).values(since=LoginAttempts.since - throttle.WINDOW)
        )

    assert (await ada.post("/session", json=ADA)).status_code == 200


async def test_expired_attempts_are_deleted(client: AsyncClient, database: Database) -> None:
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
    before = await guesses(database)
    for _ in range(3):
        assert (await ada.post("/session", json=ADA)).status_code == 200

    assert await guesses(database) == before


async def test_guesses_from_many_addresses_lock_out_only_new_addresses(
    ada: AsyncClient, app: FastAPI, database: Database
) -> None:
    async with database.transaction() as write:
        for origin in ("account:ada@example.com", "address:127.0.0.1"):
            await write.merge(LoginAttempts(origin=origin, count=throttle.TRIES_PER_ACCOUNT))

    assert await log_in_from(app, "192.0.2.1", ADA) == 429
    assert await log_in_from(app, "127.0.0.1", ADA) == 200


async def test_guesses_of_others_do_not_keep_a_person_who_is_logged_in_from_a_new_password(
    ada: AsyncClient, app: FastAPI, database: Database
) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert await log_in_from(app, "127.0.0.1", A_GUESS) == 401
    async with database.transaction() as write:
        await write.execute(update(Account).values(known_addresses=[]))  # Ada is travelling.
        for origin in ("account:ada@example.com", "address:127.0.0.1"):
            await write.merge(LoginAttempts(origin=origin, count=throttle.TRIES_PER_ACCOUNT))

    assert await log_in_from(app, "127.0.0.1", ADA) == 429
    change = {"current_password": PASSWORD, "new_password": "a new and longer password"}
    assert (await ada.put("/me/password", json=change)).status_code == 204


async def test_guesses_with_a_stolen_session_do_not_stop_a_login(
    ada: AsyncClient, app: FastAPI
) -> None:
    change = {"current_password": "a guess", "new_password": "a new and longer password"}
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert (await ada.put("/me/password", json=change)).status_code == 403
    assert (await ada.put("/me/password", json=change)).status_code == 429

    assert await log_in_from(app, "127.0.0.1", ADA) == 200
    assert (await ada.put("/me/password", json=change)).status_code == 403


async def test_a_refused_try_is_not_counted(
    ada: AsyncClient, app: FastAPI, database: Database
) -> None:
    for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 20):
        await log_in_from(app, "192.0.2.1", A_GUESS)

    assert (await guesses(database))["account:ada@example.com"] == 10
    assert await log_in_from(app, "192.0.2.2", ADA) == 200


@pytest.mark.usefixtures("open_connections")
async def test_parallel_guesses_count_too(ada: AsyncClient, app: FastAPI) -> None:
    tries = (log_in_from(app, "192.0.2.1", A_GUESS) for _ in range(30))

    statuses = await asyncio.gather(*tries)

    at_once = passwords.ONE_PER_CORE.total_tokens - 1
    assert statuses.count(401) <= throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + at_once
    assert set(statuses) == {401, 429}


async def test_guesses_from_one_address_leave_a_core_to_others(
    ada: AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, others_are_served = passwords.is_correct, asyncio.Event()

    async def compare_late(password: SecretStr, password_hash: str | None) -> bool:
        if password.get_secret_value() == A_GUESS["password"]:
            await others_are_served.wait()
        return await compare(password, password_hash)

    monkeypatch.setattr(passwords, "ONE_PER_CORE", anyio.CapacityLimiter(2))
    monkeypatch.setattr(passwords, "is_correct", compare_late)
    flood = [asyncio.create_task(log_in_from(app, "192.0.2.1", A_GUESS)) for _ in range(4)]

    async with asyncio.timeout(300):
        for _ in range(3):
            assert await log_in_from(app, "192.0.2.2", ADA) == 200
    others_are_served.set()
    assert set(await asyncio.gather(*flood)) == {401}


async def test_password_changes_from_one_address_leave_a_core_to_others(
    ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher, now, at_once = passwords.HASHER, 0, []

    def hash_slowly(password: str) -> str:
        nonlocal now
        now += 1
        at_once.append(now)
        time.sleep(0.1)
        now -= 1
        return hasher.hash(password)

    monkeypatch.setattr(passwords, "ONE_PER_CORE", anyio.CapacityLimiter(2))
    slow = SimpleNamespace(hash=hash_slowly, verify=hasher.verify)
    monkeypatch.setattr(passwords, "HASHER", slow)
    change = {"current_password": PASSWORD, "new_password": "another secret of Ada"}
    answers = await asyncio.gather(*(ada.put("/me/password", json=change) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [204, 403, 403, 403]
    assert max(at_once) == 1


async def test_all_addresses_of_an_ipv6_network_count_together(
    ada: AsyncClient, app: FastAPI
) -> None:
    for last in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert await log_in_from(app, f"2001:db8::{last:x}", A_GUESS) == 401

    assert await log_in_from(app, "2001:db8::ffff:1", A_GUESS) == 429
    assert await log_in_from(app, "2001:db8:0:1::1", A_GUESS) == 401
    assert throttle.network_of("::ffff:192.0.2.1") == throttle.network_of("192.0.2.1")


@pytest.mark.parametrize("address", ["", "x" * 8000, "fe80::1%eth0", "192.0.2.1, 192.0.2.2"])
async def test_any_client_address_from_a_proxy_is_accepted(
    ada: AsyncClient, app: FastAPI, address: str
) -> None:
    assert await log_in_from(app, address, A_GUESS) == 401


async def test_the_right_password_does_not_count_as_a_guess_when_no_session_can_start(
    ada: AsyncClient, app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("the sessions are away")

    before = await guesses(database)
    with monkeypatch.context() as patch:
        patch.setattr(type(app.state.session_store), "start", fail)
        for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
            assert (await ada.post("/session", json=ADA)).status_code == 503

    assert (await ada.post("/session", json=ADA)).status_code == 200
    assert await guesses(database) == before


async def test_unlocking_forgets_the_guesses_at_one_account(
    ada: AsyncClient, client: AsyncClient, database: Database
) -> None:
    for email in ("ada@example.com", "grace@example.com"):
        for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS):
            await client.post("/session", json={**A_GUESS, "email": email})
    assert (await client.post("/session", json=ADA)).status_code == 429

    await unlock.main("Ada@example.com")

    assert (await client.post("/session", json=ADA)).status_code == 200
    assert (await guesses(database))["account:grace@example.com"] == 10


@pytest.mark.usefixtures("open_connections")
async def test_an_account_can_be_unlocked_while_guesses_go_on(
    ada: AsyncClient, database: Database
) -> None:
    def counted(origin: str) -> Select[LoginAttempts]:
        return select(LoginAttempts).where(LoginAttempts.origin == origin).with_for_update()

    first, second = "account:ada@example.com", "account:ada@example.com address:192.0.2.1"
    for origin in (second, first):  # the other way round in the table
        async with database.transaction() as write:
            write.add(LoginAttempts(origin=origin))

    async with database.transaction() as guess:
        await guess.execute(counted(first))
        unlocking = asyncio.create_task(unlock.main("ada@example.com"))
        while not await database.reader().fetch(WAITING_FOR_A_LOCK):  # noqa: ASYNC110  # Postgres knows
            await asyncio.sleep(0.01)
        await guess.execute(counted(second))
    await unlocking

    assert (await guesses(database)).keys() == {"address:127.0.0.1"}


async def test_an_operator_logs_a_stolen_account_out_everywhere(
    ada: AsyncClient, grace: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    await log_out.main("Ada@example.com")

    assert '"kind":"logged_out_everywhere"' in capsys.readouterr().out
    assert (await ada.get("/me")).status_code == 401
    assert (await grace.get("/me")).status_code == 200


@pytest.mark.parametrize(
    "email",
    ["nobody@example.com", "", "%", "\u212a@example.com", "ad\u00e1@example.com", "\udcff@x"],
)
async def test_commands_refuse_an_email_that_no_account_has(
    client: AsyncClient, email: str
) -> None:
    await client.post("/accounts", json={**ADA, "email": "k@example.com"})

    for command in (unlock, promote, log_out):
        with pytest.raises(SystemExit, match="There is no account"):
            await command.main(email)


@pytest.mark.slow
@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("command", ["promote", "unlock", "log_out"])
def test_commands_say_in_words_that_the_database_is_away(command: str) -> None:
    away = {"DATABASE_URL": "postgresql://app:app@127.0.0.1:1/app"}
    ended = subprocess.run(
        [sys.executable, "-m", f"app.accounts.{command}", "ada@example.com"],
        env={**os.environ, **away},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 2
    assert "no connection could be opened" in ended.stderr


async def test_an_email_may_be_typed_in_capitals_and_with_spaces(ada: AsyncClient) -> None:
    for command in (unlock, promote):
        await command.main(" ADA@Example.com\n")

    assert (await ada.get("/me")).json()["is_staff"] is True


async def test_registering_is_limited_by_address(client: AsyncClient, database: Database) -> None:
    async with database.transaction() as write:
        count = throttle.TRIES_PER_ADDRESS - 1
        write.add(LoginAttempts(origin="address:127.0.0.1", count=count))

    assert (await client.post("/accounts", json=ADA)).status_code == 201
    another = await client.post("/accounts", json={**ADA, "email": "grace@example.com"})
    assert another.status_code == 429


async def test_a_login_with_the_old_password_does_not_outlive_its_change(
    ada: AsyncClient, client: AsyncClient
) -> None:
    note_success, verified, changed = throttle.note_success, asyncio.Event(), asyncio.Event()

    async def wait_for_the_change(write: WriteSession, account: Account, address: str) -> None:
        verified.set()
        await changed.wait()
        await note_success(write, account, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttle, "note_success", wait_for_the_change)
        logging_in = asyncio.create_task(client.post("/session", json=ADA))
        await verified.wait()
    change = {"current_password": PASSWORD, "new_password": "a new and longer password"}
    assert (await ada.put("/me/password", json=change)).status_code == 204
    changed.set()

    assert (await logging_in).status_code == 401
    assert (await client.get("/me")).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_two_password_changes_at_once_exactly_one_wins(ada: AsyncClient) -> None:
    changes = [
        {"current_password": PASSWORD, "new_password": f"the new password, {n}"} for n in range(2)
    ]

    answers = await asyncio.gather(*(ada.put("/me/password", json=change) for change in changes))

    assert sorted(answer.status_code for answer in answers) == [204, 403]


@pytest.mark.parametrize("around", ["\x1f", "\x1c", "\x85", "\xa0", "\n", " \t"])
async def test_an_email_address_is_the_same_with_space_around_it(
    ada: AsyncClient, client: AsyncClient, around: str
) -> None:
    """Also control characters: two accounts would look alike."""
    for email in (f"{around}{ADA['email']}", f"{ADA['email']}{around}"):
        assert (await client.post("/accounts", json={**ADA, "email": email})).status_code == 409


@pytest.mark.parametrize("path", ["/accounts", "/session"])
async def test_a_password_with_a_lone_surrogate_is_refused(client: AsyncClient, path: str) -> None:
    half = b'{"email": "ada@example.com", "password": "twelve and \\ud800"}'

    answer = await client.post(path, content=half, headers={"content-type": "application/json"})

    assert answer.status_code == 422


@pytest.mark.parametrize(
    "password",
    [
        *("password1234", "Pa$$w0rd1234", "iloveyou1234", "passwordpassword"),
        *("123456789012", "qwertyuiop12", "aaaaaaaaaaaa"),
        *("ada.lovelace@example.com", "grace.hopper@navy.example.com", "ada.lovelace1"),
    ],
)
async def test_a_password_that_is_easy_to_guess_is_refused(
    ada: AsyncClient, client: AsyncClient, password: str
) -> None:
    email = password if "@" in password else "ada.lovelace@example.com"
    answer = await client.post("/accounts", json={"email": email, "password": password})
    assert answer.status_code == 422
    assert answer.json()["title"] == "The password is too easy to guess"

    change = {"current_password": PASSWORD, "new_password": "password1234"}
    assert (await ada.put("/me/password", json=change)).status_code == 422


async def test_a_new_password_must_differ_from_the_current_one(ada: AsyncClient) -> None:
    answer = await ada.put(
        "/me/password", json={"current_password": PASSWORD, "new_password": PASSWORD}
    )

    assert answer.status_code == 422
    assert answer.json()["title"] == "The new password is the current one"


async def test_a_password_matches_with_composed_and_combining_accents(client: AsyncClient) -> None:
    composed, decomposed = "caf\u00e9 creme brulee", "cafe\u0301 creme brulee"
    assert (await client.post("/accounts", json={**ADA, "password": composed})).status_code == 201

    answer = await client.post("/session", json={**ADA, "password": decomposed})

    assert answer.status_code == 200


async def test_128_characters_may_arrive_as_512(client: AsyncClient) -> None:
    accented = "\u1f82\u1f83\u1f8a\u1f8b\u1f92\u1f93\u1f9a\u1f9b\u1fa2\u1fa3\u1faa\u1fab"
    composed = "".join(accented[n * n * n % 11] for n in range(128))
    decomposed = unicodedata.normalize("NFD", composed)
    assert len(decomposed) == 512
    assert (await client.post("/accounts", json={**ADA, "password": composed})).status_code == 201

    assert (await client.post("/session", json={**ADA, "password": decomposed})).status_code == 200


async def test_a_password_of_many_accents_is_refused_at_once(client: AsyncClient) -> None:
    """Sorting them takes seconds, and this process would serve nobody else meanwhile."""
    accents = {**ADA, "password": "a" + "\u0315" * 15_000 + "\u0300" * 15_000}
    body = json.dumps(accents, ensure_ascii=False).encode()
    begun = time.process_time()

    answer = await client.post("/session", content=body, headers=JSON)

    assert answer.status_code == 422
    assert time.process_time() - begun < 0.3


async def test_a_password_of_many_symbols_is_judged_quickly() -> None:
    """zxcvbn reads them as letters in each combination, and other requests wait."""

    async def seconds(password: str) -> float:
        begun = time.thread_time()
        await passwords.hash_new(SecretStr(password))
        return time.thread_time() - begun

    symbols = "<63|54!#(+8$@2/1%90[&7{z"
    few, many = [min([await seconds(symbols[:n]) for _ in range(5)]) for n in (14, 24)]

    assert many < 25 * few


async def test_a_persons_sessions_are_listed_and_ended_one_by_one(
    ada: AsyncClient, client: AsyncClient, grace: AsyncClient
) -> None:
    token = (await client.post("/tokens", json=ADA)).json()["token"]
    phone = {"Authorization": f"Bearer {token}"}
    sessions = (await ada.get("/me/sessions")).json()
    assert [one["is_current"] for one in sessions] == [False, True]
    assert token not in str(sessions)

    path = f"/me/sessions/{sessions[0]['id']}"
    assert (await grace.delete(path)).status_code == 404
    assert (await ada.delete(path)).status_code == 204

    assert (await client.get("/me", headers=phone)).status_code == 401
    assert (await ada.delete(path)).status_code == 404
    assert len((await ada.get("/me/sessions")).json()) == 1


async def test_logging_out_everywhere_ends_each_session(
    ada: AsyncClient, client: AsyncClient, grace: AsyncClient
) -> None:
    await client.post("/session", json=ADA)

    assert (await ada.delete("/me/sessions")).status_code == 204

    assert not ada.cookies
    assert (await client.get("/me")).status_code == 401
    assert (await grace.get("/me")).status_code == 200


async def test_staff_rights_can_be_revoked(ada: AsyncClient) -> None:
    await promote.main("ada@example.com")
    assert (await ada.get("/me")).json()["is_staff"] is True

    await promote.main("ada@example.com", revoke=True)

    assert (await ada.get("/me")).json()["is_staff"] is False


async def test_a_registration_is_logged(client: AsyncClient) -> None:
    with capture_logs() as lines:
        registered = (await client.post("/accounts", json=ADA)).json()
    events = [line for line in lines if line["event"] == "security"]
    assert [line["kind"] for line in events] == ["registered"]
    assert events[0]["account_id"] == UUID(registered["id"])


async def test_a_logout_of_other_devices_is_logged(ada: AsyncClient, client: AsyncClient) -> None:
    account_id = (await client.post("/session", json=ADA)).json()["id"]
    with capture_logs() as lines:
        [other] = [one for one in (await ada.get("/me/sessions")).json() if not one["is_current"]]
        await ada.delete(f"/me/sessions/{other['id']}")
        await ada.delete("/me/sessions")

    events = [(line["kind"], line["account_id"]) for line in lines if line["event"] == "security"]
    kinds = ["device_logged_out", "logged_out_everywhere"]
    assert events == [(kind, UUID(account_id)) for kind in kinds]


async def test_a_change_whose_commit_fails_is_not_logged(
    ada: AsyncClient, database: Database
) -> None:
    statements = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE SQLSTATE '40001'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE OF password_hash ON accounts"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    async with database.transaction() as write:
        for statement in statements:
            await write.execute(text(statement))
    change = {"current_password": PASSWORD, "new_password": "another long password"}
    with capture_logs() as lines:
        assert (await ada.put("/me/password", json=change)).status_code == 503

    assert not [line for line in lines if line["event"] == "security"]


async def test_an_event_is_logged_once_and_not_at_a_savepoint(
    ada: AsyncClient, database: Database
) -> None:
    with capture_logs() as lines:
        async with database.transaction() as write:
            await service.promote(write, "ada@example.com")
            async with write.begin_nested():
                await write.execute(text("SELECT 1"))
            assert lines == []
            await write.commit()
            await write.execute(text("SELECT 1"))

    assert [line["kind"] for line in lines] == ["staff_given"]


async def test_security_events_are_logged_without_personal_data(
    ada: AsyncClient, client: AsyncClient
) -> None:
    change = {"current_password": PASSWORD, "new_password": "another long password"}
    with capture_logs() as lines:
        await client.post("/session", json=ADA)
        await ada.put("/me/password", json=change)
        await promote.main("ada@example.com")
        await promote.main("ada@example.com", revoke=True)
        for _ in range(throttle.TRIES_PER_ACCOUNT_AND_ADDRESS + 1):
            await client.post("/session", json=A_GUESS)
        await unlock.main("ada@example.com")

    events = [line for line in lines if line["event"] == "security"]
    kinds = ["login", "password_changed", "staff_given", "staff_revoked"]
    kinds += [*["login_failed"] * 10, "locked", "unlocked"]
    assert [line["kind"] for line in events] == kinds
    assert {line["account_id"] for line in events} == {UUID((await ada.get("/me")).json()["id"])}
    for personal in ("ada@", "127.0.0.1", PASSWORD):
        assert personal not in str(lines)


async def test_an_answer_that_says_when_to_try_again_is_described(app: FastAPI) -> None:
    answers = app.openapi()["paths"]["/session"]["post"]["responses"]

    described = {status for status, answer in answers.items() if "headers" in answer}
    assert described == {"429", "503"}
    assert answers["429"]["headers"]["Retry-After"]["schema"] == {"type": "integer"}


@pytest.mark.slow
@pytest.mark.parametrize("is_staff", [False, True])
def test_all_routes_answer_as_described(services: Services, tmp_path: Path, is_staff: bool) -> None:
    with serving() as server:
        answer = httpx.post(f"{server}/accounts", json=ADA)
        if is_staff:
            asyncio.run(promote.main(ADA["email"]))
        config = tmp_path / "schemathesis.toml"
        config.write_text(f'auth.openapi.session.api_key = "{answer.cookies["__Host-session"]}"')

        assert_answers_as_described(server, f"--config-file={config}", but=SESSION_PATHS)
