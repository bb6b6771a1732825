# Rung's file: advancing to another stage may change it.
"""PgBouncer on this machine, configured by deploy/pgbouncer.ini as in production."""

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from dev import ports, postgres
from dev.server import Server, ServerError, installed

CONFIGURATION = postgres.REPOSITORY / "deploy" / "pgbouncer.ini"


class PgBouncer(Server):
    """`url` and `read_url` correspond to DATABASE_URL and DATABASE_READ_URL in production."""

    name = "PgBouncer"
    user = postgres.SERVER_USER

    def __init__(self, folder: Path, server: SplitResult) -> None:
        super().__init__(folder, remove=True)
        self._login = f"{server.username}:{server.password}"

    @property
    def url(self) -> str:
        return self._leads_to("app")

    @property
    def read_url(self) -> str:
        return self._leads_to("app_read")

    def command(self) -> list[str | Path]:
        return [program(), self.folder / "pgbouncer.ini"]

    def restart(self) -> None:
        """Restarts as the runbook does: transactions end, then PgBouncer stops and starts again."""
        self.signal(signal.SIGINT)
        self._supervisors[-1].wait()
        self.start()

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    def _start_unless_running(self) -> subprocess.Popen[bytes]:
        return self.start()  # on the port that its configuration names

    def _leads_to(self, database: str) -> str:
        return f"postgresql://{self._login}@127.0.0.1:{self.port}/{database}"


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
    _write(folder, server, by_port or server.port, {**settings, "listen_port": port})
    (folder / "port").write_text(str(port))
    with PgBouncer(folder, server).running() as bouncer:
        yield bouncer


def program() -> str:
    return installed("pgbouncer")


def keeps_statements() -> bool:
    """Whether DATABASE_STATEMENT_CACHE=100 is safe with the installed PgBouncer."""
    answer = subprocess.run([program(), "--version"], check=True, capture_output=True, text=True)
    version = tuple(int(part) for part in answer.stdout.split()[1].split("."))
    return version >= (1, 21)


def configuration() -> ConfigParser:
    """deploy/pgbouncer.ini as it is."""
    # A connect_query is SQL: its % and = mean nothing here.
    parser = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.read(CONFIGURATION, encoding="utf-8")
    return parser


def _write(
    folder: Path, server: SplitResult, port: int | None, settings: Mapping[str, str | int]
) -> None:
    """Only the host, the port and the file of users differ from production."""
    written = configuration()
    here = {"host": server.hostname, "port": port, "dbname": server.path.removeprefix("/")}
    for name, connection in written["databases"].items():
        for key, value in here.items():
            connection = re.sub(rf"\b{key}=\S+", f"{key}={value}", connection, count=1)
        written["databases"][name] = connection
    here_settings = {
        "listen_addr": "127.0.0.1",
        "auth_file": folder / "userlist.txt",
        "stats_users": server.username,
        **settings,
    }
    for key, setting in here_settings.items():
        written["pgbouncer"][key] = str(setting)
    if not keeps_statements():
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
    shown, variables = postgres.without_password(server.geturl())
    found = subprocess.run(
        [postgres.binaries() / "psql", "-XAt", "-c", query, shown],
        env=variables,
        capture_output=True,
        text=True,
    )
    if found.returncode != 0:
        raise ServerError(f"Postgres did not say how it stores the password:\n{found.stderr}")
    return found.stdout
