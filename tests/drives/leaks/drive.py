"""Makes each statement of accounts and sessions slow and fail, and looks for values in all logs.

Runs in a generated repo of any stage: python -m leaks.drive
"""

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
from dev import ports, postgres, services

FOLDER = postgres.REPOSITORY / "leaks"
TRIED = FOLDER / "tried"

# Shorter ones are words of the logs themselves.
SHORTEST = 10

SERVE = (sys.executable, "-m", "leaks.serve_failing")
GUESSES_UNTIL_LOCKED = 10

# Of no use to anybody who reads them: ids, and times.
OF_NO_USE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT.*")


class Request(NamedTuple):
    method: str
    path: str
    body: dict[str, str] | None = None
    headers: Mapping[str, str] = {}


class Receiver(ThreadingHTTPServer):
    """The spans and points that the app sends to a collector."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keep)
        self.got = b""


class _Keep(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.got += self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its own name


class Shop:
    """The app with all that its stage puts around it, and all that was sent to it."""

    def __init__(self, stack: ExitStack, program: Sequence[str] = SERVE) -> None:
        self.values: set[str] = set()
        self.statuses: list[int] = []
        self._receiver = stack.enter_context(_receiving())
        given = {
            **os.environ,
            "DATABASE_URL": stack.enter_context(postgres.for_load()),
            "PYTHONPATH": str(postgres.REPOSITORY),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._receiver.server_port}",
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "TRIED": str(TRIED),
        }
        self.environment = stack.enter_context(services.environment(given))
        self.database_url = self.environment["DATABASE_URL"]
        self._bouncer: Any = None
        if importlib.util.find_spec("dev.pooling"):
            from dev.pooling import pgbouncer

            self._bouncer = stack.enter_context(pgbouncer.running(self.database_url))
            self.environment |= {
                "DATABASE_POOLED": "true",
                "DATABASE_URL": self._bouncer.url,
                "DATABASE_READ_URL": self._bouncer.read_url,
                "DATABASE_DIRECT_URL": self.database_url,
            }
        self.run("-m", "alembic", "upgrade", "head")
        port = ports.unused()
        self.environment |= {"PORT": str(port), "LISTEN_ADDRESS": "127.0.0.1"}
        with (FOLDER / "app.log").open("wb") as log:
            self.process = subprocess.Popen(program, env=self.environment, stdout=log, stderr=log)
        stack.callback(self.stop)
        self.url = f"http://127.0.0.1:{port}"
        if importlib.util.find_spec("dev.copies"):
            from dev.copies import haproxy

            balancer = haproxy.HAProxy(FOLDER / "haproxy", ports.unused(), [port])
            self.url = stack.enter_context(balancer.running()).url
        patient = httpx.HTTPTransport(retries=8)  # to connect, for a minute in all
        client = httpx.Client(base_url=self.url, timeout=300, transport=patient)
        self._client = stack.enter_context(client)
        self.until_it_serves("GET", "/ready")

    def stop(self) -> None:
        """The app sends its last spans in this time."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def run(self, *arguments: str) -> None:
        command = (sys.executable, *arguments)
        subprocess.run(command, env=self.environment, capture_output=True, check=True)

    def until_it_serves(self, *request: Any) -> httpx.Response:
        for _ in range(600):
            answer = self.ask(Request(*request))
            if answer.status_code < 500:
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{request}: {answer.status_code}")

    def ask(self, request: Request) -> httpx.Response:
        answer = self._client.request(
            request.method, request.path, json=request.body, headers=request.headers
        )
        self._client.cookies.clear()
        self.statuses.append(answer.status_code)
        self._note(request, answer)
        return answer

    def written(self) -> dict[str, str]:
        """By all who keep a log or traces."""
        written = {"the app": (FOLDER / "app.log").read_bytes(), "the receiver": self._receiver.got}
        if self._bouncer:  # before, Postgres is configured by its owner alone
            written["Postgres"] = (postgres.state_folder() / "load" / "log").read_bytes()
            written["PgBouncer"] = self._bouncer.log.encode()
        for log in FOLDER.glob("haproxy/log"):
            written["HAProxy"] = log.read_bytes()
        return {name: text.decode(errors="replace") for name, text in written.items()}

    def sql(self, statement: str) -> str:
        psql = (postgres.binaries() / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement)
        done = subprocess.run(
            (*psql, self.database_url),
            env=postgres.environment() | {"PGOPTIONS": "-c log_min_duration_statement=-1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def _note(self, request: Request, answer: httpx.Response) -> None:
        sent = [
            *(request.body or {}).values(),
            *request.headers.values(),
            request.path.rpartition("/")[2],
        ]
        got = [cookie.value or "" for cookie in answer.cookies.jar]
        if answer.content.startswith(b"{"):
            got.append(answer.json().get("token", ""))
        for value in (*sent, *got):
            secret = value.removeprefix("Bearer ").rpartition("=")[2]
            self.values |= {secret, hashlib.sha256(secret.encode()).hexdigest()}


@contextmanager
def _receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


def visit(name: str, shop: Shop) -> Iterator[Request]:
    """Every action that an account allows."""
    password = f"the secret of {name}"
    ada = person(name, password)
    yield Request("POST", "/accounts", ada)
    yield Request("POST", "/accounts", ada)
    yield Request("POST", "/session", {**ada, "password": f"a guess at {name}"})
    tokens = [f"invented-{name}", *_tokens(shop, ada)]
    for token in tokens:
        cookie, bearer = {"Cookie": f"__Host-session={token}"}, {"Authorization": f"Bearer {token}"}
        yield Request("GET", "/me", None, cookie)
        yield Request("GET", "/me", None, bearer)
        yield Request("GET", "/me/sessions", None, cookie)
    logged_in = {"Authorization": f"Bearer {tokens[-1]}"}
    yield Request("POST", "/orders", {"product_id": f"a product for {name}"}, logged_in)
    wrong = {"current_password": f"another guess at {name}", "new_password": f"{password} 2"}
    yield Request("PUT", "/me/password", wrong, logged_in)
    change = {"current_password": password, "new_password": f"the new secret of {name}"}
    yield Request("PUT", "/me/password", change, logged_in)
    yield Request("DELETE", f"/me/sessions/an-invented-one-of-{name}", None, logged_in)
    yield Request("DELETE", "/session", None, {"Cookie": f"__Host-session={tokens[1]}"})
    yield Request("DELETE", "/me/sessions", None, logged_in)
    yield Request("DELETE", "/tokens/current", None, logged_in)
    for _ in range(GUESSES_UNTIL_LOCKED):
        yield Request("POST", "/tokens", {**ada, "password": f"a guess at {name}"})


def person(name: str, password: str) -> dict[str, str]:
    return {"email": f"{name}.lovelace@example.com", "password": password}


def _tokens(shop: Shop, credentials: dict[str, str]) -> Iterator[str]:
    browser = shop.until_it_serves("POST", "/session", credentials)
    assert browser.status_code == 200, browser.text
    yield browser.headers["set-cookie"].partition("=")[2].partition(";")[0]
    for _ in range(2):
        yield shop.until_it_serves("POST", "/tokens", credentials).json()["token"]


def each_statement_fails_once(shop: Shop) -> None:
    for request in visit("first", shop):
        shop.until_it_serves(*request)
        note_stored(shop)


def each_table_refuses_each_row(shop: Shop) -> None:
    used = tables(shop)
    for request in visit("second", shop):
        for table in used:
            shop.sql(f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK (false) NOT VALID")
            shop.ask(request)
            shop.sql(f"ALTER TABLE {table} DROP CONSTRAINT refused")
        shop.until_it_serves(*request)
        note_stored(shop)


def a_row_is_locked_for_long(shop: Shop) -> None:
    lock = threading.Thread(
        target=shop.sql, args=("BEGIN; SELECT FROM accounts FOR UPDATE; SELECT pg_sleep(2)",)
    )
    lock.start()
    time.sleep(0.3)
    shop.ask(Request("POST", "/session", person("first", "the new secret of first")))
    lock.join()


def commands(shop: Shop) -> None:
    for arguments in (
        ("app.accounts.promote", "first.lovelace@example.com"),
        ("app.accounts.unlock", "second.lovelace@example.com"),
    ):
        shop.run("-m", *arguments)


def note_stored(shop: Shop) -> None:
    for table in tables(shop):
        rows = shop.sql(f"SELECT row_to_json(stored) FROM {table} AS stored")  # noqa: S608
        for row in rows.splitlines():
            texts = [value for value in json.loads(row).values() if isinstance(value, str)]
            shop.values |= {text.removeprefix("\\x") for text in texts}


def tables(shop: Shop) -> list[str]:
    """Those that are used."""
    statements = TRIED.read_text(encoding="utf-8")
    made = shop.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split()
    return [table for table in made if table in statements]


def main() -> None:
    TRIED.write_text("", encoding="utf-8")
    # Every statement counts as slow. All other settings are as delivered.
    for name, value in postgres.SETTINGS.items():
        if name.endswith(("min_duration", "min_duration_statement")) and value != "-1":
            postgres.SETTINGS[name] = "0"
    with ExitStack() as stack:
        shop = Shop(stack)
        each_statement_fails_once(shop)
        each_table_refuses_each_row(shop)
        a_row_is_locked_for_long(shop)
        commands(shop)
        shop.stop()
        values = {v for v in shop.values if len(v) >= SHORTEST and not OF_NO_USE.fullmatch(v)}
        written = shop.written()
    leaked = {name: sorted(v for v in values if v in text) for name, text in written.items()}
    report = {
        "requests": len(shop.statuses),
        "failed": sum(status >= 500 for status in shop.statuses),
        "statements": len(TRIED.read_text(encoding="utf-8").splitlines()),
        "values": len(values),
        "written": {name: len(text) for name, text in written.items()},
        "leaked": {name: found for name, found in leaked.items() if found},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
