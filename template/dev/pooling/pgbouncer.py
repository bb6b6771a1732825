# Rung's file: advancing to another stage may change it.
"""PgBouncer on this machine, configured by deploy/pgbouncer.ini as in production."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from dev import ports, postgres, supervisor

CONFIGURATION = postgres.REPOSITORY / "deploy" / "pgbouncer.ini"
START_SECONDS = 10


class PgBouncerError(postgres.PostgresError):
    """The message says why PgBouncer does not run, and what to do."""


@dataclass
class PgBouncer:
    """`url` and `read_url` correspond to DATABASE_URL and DATABASE_READ_URL in production."""

    url: str
    read_url: str
    # For psql: SHOW POOLS, SHOW STATS.
    console_url: str
    _folder: Path
    _supervisors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def restart(self) -> None:
        """Restarts as the runbook does: transactions end, then PgBouncer stops and starts again."""
        self._end(signal.SIGINT)
        self.start()

    def reload(self) -> None:
        self._tell(signal.SIGHUP)

    def die(self) -> None:
        self._end(signal.SIGKILL)

    def start(self) -> None:
        process = supervisor.supervise(
            [program(), self._folder / "pgbouncer.ini"],
            self._folder,
            env=os.environ,
            stop_with=signal.SIGKILL,  # it keeps nothing, and its clients are gone
            user=postgres.SERVER_USER,
            remove=True,
        )
        self._supervisors.append(process)
        self._wait_until_it_serves(process)

    def _tell(self, order: signal.Signals) -> None:
        os.kill(int((self._folder / "pid").read_text()), order)

    def _end(self, order: signal.Signals) -> None:
        self._tell(order)
        self._supervisors[-1].wait()
        (self._folder / "pid").unlink(missing_ok=True)

    def _wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        server = urlsplit(self.url)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as client:
                if client.connect_ex((server.hostname, server.port)) == 0:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise PgBouncerError(f"PgBouncer did not start:\n{self.log[-2000:]}")
            time.sleep(0.01)


@contextmanager
def running(
    postgres_url: str, *, by_port: int | None = None, **settings: str | int
) -> Iterator[PgBouncer]:
    """A PgBouncer in front of this database, reached by another port if given. `settings` override
    the configuration's [pgbouncer]. It ends with this process, even after kill -9.
    """
    program()
    folder = postgres.state_folder() / f"pgbouncer-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    server = urlsplit(postgres_url)
    port = ports.unused()
    (folder / "port").write_text(str(port))
    _write(folder, server, by_port or server.port, {**settings, "listen_port": port})
    base = f"postgresql://{server.username}:{server.password}@127.0.0.1:{port}"
    bouncer = PgBouncer(f"{base}/app", f"{base}/app_read", f"{base}/pgbouncer", folder)

    def start() -> subprocess.Popen[bytes]:
        bouncer.start()
        return bouncer._supervisors[-1]

    try:
        with supervisor.shared(folder, start, remove=True):
            yield bouncer
    finally:
        for process in bouncer._supervisors:
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)  # still there if it crashed


def program() -> str:
    # Debian has it in /usr/sbin, which the PATH of an ordinary user may lack.
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise PgBouncerError("pgbouncer is not installed: make system-packages")
    return found


def configuration() -> ConfigParser:
    """deploy/pgbouncer.ini as it is."""
    # A connect_query is SQL: its % and = mean nothing here.
    parser = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.read(CONFIGURATION, encoding="utf-8")
    return parser


def _write(
    folder: Path, server: SplitResult, port: int | None, settings: Mapping[str, str | int]
) -> None:
    """Another host, another port and another file of users; all else is as in production."""
    written = configuration()
    here = {"host": server.hostname, "port": port, "dbname": server.path.removeprefix("/")}
    for name, alias in written["databases"].items():
        connection = alias
        for key, value in here.items():
            connection = re.sub(rf"\b{key}=\S+", f"{key}={value}", connection, count=1)
        written["databases"][name] = connection
    here_settings = {
        "listen_addr": "127.0.0.1",
        "auth_file": folder / "userlist.txt",
        "pidfile": folder / "pid",
        "stats_users": server.username,
        **settings,
    }
    for key, setting in here_settings.items():
        written["pgbouncer"][key] = str(setting)
    if _version() < (1, 21):
        del written["pgbouncer"]["max_prepared_statements"]
    users = folder / "userlist.txt"
    users.touch(mode=0o600)
    users.write_text(_stored_password(server))
    with (folder / "pgbouncer.ini").open("w") as file:
        written.write(file)
    if postgres.SERVER_USER is not None:
        for path in (folder, users):
            os.chown(path, postgres.SERVER_USER, -1)


def _stored_password(server: SplitResult) -> str:
    """The password's hash, as Postgres stores it. PgBouncer needs no more to accept clients."""
    query = """SELECT format('"%s" "%s"', rolname, rolpassword)
        FROM pg_authid WHERE rolname = current_user"""
    found = subprocess.run(
        [postgres.binaries() / "psql", "-XAt", "-c", query, server.geturl()],
        env=postgres.environment(),
        capture_output=True,
        text=True,
    )
    if found.returncode != 0:
        raise PgBouncerError(f"Postgres did not say how it stores the password:\n{found.stderr}")
    return found.stdout


def _version() -> tuple[int, ...]:
    answer = subprocess.run([program(), "--version"], check=True, capture_output=True, text=True)
    return tuple(int(part) for part in answer.stdout.split()[1].split("."))
