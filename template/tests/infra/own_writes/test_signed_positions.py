# Rung's file: advancing to another stage may change it.
"""Headers and cookies that hold positions: ours are read, all others are ignored."""

import itertools
import random
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from app.infra.answers import answer_of
from app.infra.own_writes.client import OwnWrites, SessionPositions, this_client
from app.infra.own_writes.log_position import MAIN, NOT_KNOWN, Position, decoded, encoded
from app.infra.own_writes.signed_positions import HEADER, NEVER, Carried, SignedPositions, marker
from app.infra.session_tokens import COOKIE, token_of
from app.infra.signing import Signer
from tests.infra.conftest import Serve, bare_app

POSITIONS = SignedPositions(Signer(SecretStr("the-same-secret-key-for-every-test")))
SIGNED = POSITIONS.header({MAIN: Position(1, 7)})[1]

HOSTILE = [
    b"",
    b".",
    b"1.2",
    b"1.2.3",
    b"x.y.z",
    b"1..\xe9",
    b"1." + b"f" * 5000 + b".x",
    b"1." + b"f" * 5000 + b"." + b"0" * 64,
    b"f" * 5000 + b".1." + b"0" * 64,
    b"-1.-1." + b"0" * 64,
    b"1_0.1." + b"0" * 64,
    b"ffff.ffffffffffff." + b"0" * 64,
    b"main:" + SIGNED,
    SIGNED + b"0",
    SIGNED[:-1],
    SIGNED.upper(),
    b"1.8" + SIGNED[3:],
    b"\x00" * 100,
    b"=;,\"'\\" * 50,
    b"\xff" * 8000,
]


def carried(**headers: bytes) -> Carried:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    scope = {"headers": named}
    return POSITIONS.of(scope, by_token=token_of(scope).in_header)


def cookies(position: Position, before: Carried | None = None) -> list[bytes]:
    given = POSITIONS.cookies(MAIN, position, before or Carried(), timedelta(seconds=60))
    return [value for _, value in given]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_position_that_we_did_not_sign_is_ignored(hostile: bytes) -> None:
    as_cookie = b"__Host-wrote-7=" + hostile
    assert carried(read_after=hostile) == Carried()
    assert carried(cookie=as_cookie) == Carried()
    assert carried(cookie=b"__Host-wrote-" + hostile) == Carried()


async def test_no_header_or_cookie_makes_a_request_fail(serve: Serve, services: object) -> None:
    app = bare_app()

    @app.get("/")
    async def home() -> None: ...

    pieces = [*HOSTILE, SIGNED, b"__Host-wrote-7=", f"{COOKIE}=".encode(), b"; ", b"Bearer "]
    pieces = [piece.replace(b"\x00", b"").strip() or b"; " for piece in pieces]
    choose = random.Random(12)  # noqa: S311  # the same in every run
    async with serve(app) as client:
        for _ in range(300):
            headers = [
                (name, b"".join(choose.choices(pieces, k=choose.randint(1, 6))))
                for name in (b"read-after", b"cookie", b"cookie", b"authorization")
            ]
            assert (await client.get("/", headers=headers)).status_code == 200, headers


def test_the_greatest_position_of_several_cookies_counts() -> None:
    given = [*cookies(Position(1, 9)), *cookies(Position(1, 7))]
    brought = b"; ".join(cookie.split(b";")[0] for cookie in given)
    both = carried(cookie=brought)

    assert both.positions == {MAIN: Position(1, 9)}
    removed = [c for c in cookies(Position(1, 10), both) if b"Max-Age=0" in c]
    assert sorted(c.split(b"=")[0] for c in removed) == [b"__Host-wrote-7", b"__Host-wrote-9"]


def test_the_newest_of_very_many_cookies_counts() -> None:
    written = range(100)  # by a page that does not wait for its answers
    jar = [cookies(Position(1, lsn))[0].split(b";")[0] for lsn in written]

    assert carried(cookie=b"; ".join(jar)).positions == {MAIN: Position(1, 99)}


def test_the_greatest_position_of_several_in_headers_counts() -> None:
    later, never = (POSITIONS.header({MAIN: one})[1] for one in (Position(1, 9), NEVER))

    greatest = {MAIN: Position(1, 9)}

    for given in itertools.permutations([SIGNED, later, never]):
        assert carried(read_after=b", ".join(given)).positions == greatest
        fields = [(HEADER, one) for one in given]
        assert POSITIONS.of({"headers": fields}, by_token=False).positions == greatest


def test_cookies_prove_nothing_beside_a_token_because_its_answers_set_none() -> None:
    position = cookies(Position(1, 7))[0].split(b";")[0]
    browser = b"; ".join([marker()[1].split(b";")[0], position])

    assert carried(cookie=browser).covers(())
    assert not carried(cookie=position).covers(())
    assert not carried(cookie=browser, authorization=b"Bearer abc").covers(())
    assert carried(read_after=SIGNED, authorization=b"Bearer abc").covers(())


def test_java_sends_positions_and_the_marker_in_quotes() -> None:
    kept = [one.split(b";")[0] for one in (marker()[1], *cookies(Position(1, 7)))]
    in_quotes = [one.replace(b"=", b'="') + b'";$Path="/"' for one in kept]

    found = carried(cookie=b"; ".join([b'$Version="1"', *in_quotes]))
    assert found.positions == {MAIN: Position(1, 7)}
    assert found.keeps_cookies


def test_a_position_is_the_same_after_it_was_stored() -> None:
    for position in (Position(1, 7), Position(2**31, 2**60), NOT_KNOWN):
        assert decoded(encoded(position).decode()) == position
    assert decoded("1.2") is decoded("") is None


async def test_a_write_in_a_module_sets_its_cookie_also_before_all_positions_are_known() -> None:
    """Otherwise a browser that gets the marker from a parallel request would not see the write."""
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    async def write(scope: Scope, receive: Receive, send: Send) -> None:
        this_client().at("letters").wrote(Position(1, 7))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    nowhere: Any = None
    positions = SessionPositions(nowhere, modules=["letters", "parcels"])
    state = SimpleNamespace(session_store=None, positions=positions)
    scope = {"type": "http", "path": "/", "method": "POST", "app": SimpleNamespace(state=state)}
    scope["headers"] = [(b"cookie", f"{COOKIE}=of-a-browser".encode())]
    _, send = answer_of(scope, keep)
    await OwnWrites(write, Signer(SecretStr("a-secret-key-for-this-test")))(scope, nowhere, send)

    names = [
        value.partition(b"=")[0] for name, value in sent[0]["headers"] if name == b"set-cookie"
    ]
    assert names == [b"__Host-wrote-letters-7"]
