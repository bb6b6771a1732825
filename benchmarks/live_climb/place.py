"""The machines of a small service, on this one: its own Postgres, a proxy, folders and programs.

The runbooks' commands find the programs on PATH, as on a machine where they are installed.
"""

import atexit
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

NOBODY = 65534  # Postgres and PgBouncer refuse root
PR_SET_CHILD_SUBREAPER = 36
BUCKET = "files"
FILES_ROWS = "SELECT key, CASE WHEN deleted_at IS NULL THEN sha256 END AS sha256 FROM uploads"
PROGRAMS = (
    *("psql", "initdb", "pg_ctl", "pg_basebackup"),
    *("pg_controldata", "pg_rewind", "pg_waldump"),
)
# The variables of the primary and of its replica, which change places.
EXCHANGED = (
    *((f"POSTGRES{end}", f"REPLICA{end}") for end in ("", "_PLACE", "_DATA", "_CONF", "_HBA")),
    *((f"{verb}_POSTGRES", f"{verb}_REPLICA") for verb in ("TO", "START", "STOP", "RESTART")),
    ("DIRECT", "REPLICA_DIRECT"),
    ("REPLICATION", "REPLICA_REPLICATION"),
)
# Those of a server and of the one that takes its place.
CACHES = (("CACHE", "NEW_CACHE"), ("CACHE_PORT", "NEW_CACHE_PORT"))
SESSIONS = (("SESSIONS", "NEW_SESSIONS"), ("SESSIONS_PORT", "NEW_PORT"))
type Names = tuple[tuple[str, str], ...]


class PlaceError(Exception):
    """Says what does not run, and why."""


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = folder / "shop"
        self.site = folder / "site"
        self.servers = folder / "servers"
        self.pooler = folder / "pooler"
        self.cache = folder / "cache"
        self.sessions = folder / "sessions"
        self.buckets = folder / "buckets"
        self.programs = folder / "bin"
        self.variables: dict[str, str] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._starting = threading.Lock()
        self._servers: list[subprocess.Popen[bytes]] = []
        self._nice: tuple[str, ...] = ()
        # A process outlives the commands that started it. Adopted here, it can be awaited.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.programs}:{os.environ['PATH']}:/usr/sbin"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        for name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"):
            kept.pop(name, None)
        return kept | self.variables | {"PATH": path, "CLIMB": str(self.folder)}

    @property
    def url(self) -> str:
        """Where the name of the service leads now."""
        name = self.folder / "name"
        if name.exists():
            self.variables["URL"] = url = name.read_text(encoding="utf-8").strip()
            is_new = url == self.variables["PROXY_URL"]
            self.variables["BALANCER"] = self.variables[f"{'NEW' if is_new else 'OLD'}_BALANCER"]
        return self.variables["URL"]

    def prepare(self) -> None:
        """Everything that a service of stage 1 has, but the app. The repo is at its last stage."""
        for folder in (
            self.site,
            self.servers,
            self.pooler,
            self.cache,
            self.sessions,
            Path(f"{self.cache}-2"),
            Path(f"{self.sessions}-2"),
            self.programs,
        ):
            folder.mkdir()
        (self.site / "files").mkdir()
        if os.geteuid() == 0:
            for folder in (self.servers, self.pooler):
                os.chown(folder, NOBODY, NOBODY)
        self._install()
        self._name_everything()
        self._make_postgres()
        secret = secrets.token_hex(32)
        settings = {
            "DATABASE_URL": self.variables["DIRECT"],
            "SECRET_KEY": secret,
            "FILES_FOLDER": str(self.site / "files"),
            "LISTEN_ADDRESS": "127.0.0.1",
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
            "LOG_FORMAT": "json",
            # The machine may be busy, because everything runs on it.
            "SESSION_REDIS_SECONDS": "5",
        }
        lines = [f"{name}='{value}'\n" for name, value in settings.items()]
        (self.site / "app.env").write_text("".join(lines), encoding="utf-8")
        if (self.programs / "rclone").exists():
            self._make_bucket()
            self._start_s3()

    def start_again(self, variables: dict[str, str]) -> None:
        """Starts the servers that ran when the climb was stopped, as after a power cut, without the
        app."""
        self.stop()
        self.variables = variables
        folder = self.folder
        self._run(variables["START_POSTGRES"])
        if Path(variables["REPLICA_DATA"], "standby.signal").exists():
            with suppress(PlaceError):  # its copy was cut
                self._run(variables["START_REPLICA"])
        self._start_proxy()
        if (self.programs / "start-s3").exists():
            self._start_s3()
        cache, sessions = Path(variables["CACHE"]), Path(variables["SESSIONS"])
        commands = {
            self.pooler / "pid": ("pgbouncer", "-q", "-d", str(self.pooler / "pgbouncer.ini")),
            cache / "pid": ("valkey-server", str(cache / "cache.conf")),
            sessions / "pid": ("valkey-server", str(sessions / "sessions.conf")),
            folder / "collector.pid": ("start-collector",),
            folder / "new-haproxy.pid": ("start-proxy", str(self.site / "haproxy.cfg")),
        }
        for file in self.site.glob("*.pid"):
            file.unlink()
        for file, command in commands.items():
            if file.exists():
                file.unlink()
                self._run(*command)

    def exchange_primary_and_replica(self) -> None:
        """After a failover."""
        self.exchange(EXCHANGED)

    def exchange(self, names: Names) -> None:
        for one, other in names:
            self.variables |= {one: self.variables[other], other: self.variables[one]}

    def start_balancer(self, configuration: str) -> None:
        """With the ports of this place, and no other change."""
        addresses = {
            "bind :8000": f"bind 127.0.0.1:{self.url.rpartition(':')[2]}",
            "127.0.0.1:8404": self.variables["BALANCER"].removeprefix("http://"),
            "8001": self.variables["ONE"],
            "8002": self.variables["TWO"],
        }
        for written, here in addresses.items():
            if written not in configuration:
                raise PlaceError(f"HAProxy's configuration does not have {written}.")
            configuration = configuration.replace(written, here)
        file = self.folder / "haproxy.cfg"
        file.write_text(f"{configuration}\n", encoding="utf-8")
        self._start_proxy()

    def prefer_the_clients(self) -> None:
        """Real clients have other machines, so do not measure a wait of their process."""
        with suppress(PermissionError):
            os.nice(-10)
            self._nice = ("nice", "-n", "10")

    def start(self, command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """The caller awaits it."""
        with self._starting:
            started = subprocess.Popen(
                [*self._nice, *command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            self._started.append(started)
        return started

    def query(self, sql: str) -> list[str]:
        """The primary's rows, one text each."""
        done = self._run("psql", self.variables["POSTGRES"], "-XAtc", sql)
        return done.splitlines()

    def adopt(self) -> None:
        """Ends the zombies among the processes that the runbooks' commands left here."""
        with suppress(ChildProcessError):
            # To look through /proc takes 6 ms, in which no client is served.
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                with self._starting:
                    # The kernel gives the pid of one that was awaited to another process.
                    self._started = [one for one in self._started if one.returncode is None]
                    ours = {one.pid: one for one in self._started}.get(found.si_pid)
                    if ours is None:
                        os.waitpid(found.si_pid, os.WNOHANG)
                    elif ours.poll() is None:
                        return  # somebody awaits it

    def stop(self) -> None:
        """Ends every process of this place, also those of a run that was killed."""
        for data in self.servers.glob("*/postmaster.pid"):
            with suppress(PlaceError):
                self._run("pg_ctl", "-D", str(data.parent), "-m", "immediate", "stop")
        for _ in range(100):
            left = [pid for pid in self._processes() if pid != os.getpid()]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.adopt()
            if not left:
                break
            time.sleep(0.05)
        for server in self._servers:
            server.wait()

    def _processes(self) -> list[int]:
        found = []
        mark, program = f"CLIMB={self.folder}".encode(), f"{self.folder}/".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # Valkey writes its title over its environment.
                is_ours = (process / "cmdline").read_bytes().startswith(program)
                if is_ours or mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def _install(self) -> None:
        binaries = self._found_in_repo("from dev import postgres; print(postgres.binaries())")
        if (self.repo / "dev/cache").exists():
            found = self._found_in_repo("from dev.cache import valkey; print(valkey.program())")
            self._program("valkey-server", f'exec {found} "$@"')
        if (self.repo / "dev/s3").exists():
            found = self._found_in_repo("from dev.s3 import rclone; print(rclone.program())")
            self._program("rclone", f'exec {found} "$@"')
        as_nobody = ""
        if os.geteuid() == 0:
            as_nobody = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
        libraries = f"export LD_LIBRARY_PATH={binaries.parent / 'lib'}\n"
        for name in PROGRAMS:
            user = "" if name == "psql" else as_nobody
            own = f'chown -R {NOBODY}:{NOBODY} "$POSTGRES_DATA"\n'  # root put settings there
            before = own if as_nobody and name == "pg_rewind" else ""
            self._program(name, f'{before}{libraries}exec {user}{binaries / name} "$@"')
        path = f"{os.environ['PATH']}:/usr/sbin"
        bouncer = shutil.which("pgbouncer", path=path)
        if bouncer is None or shutil.which("haproxy", path=path) is None:
            raise PlaceError("Install PgBouncer and HAProxy: apt-get install pgbouncer haproxy")
        version = subprocess.run([bouncer, "--version"], capture_output=True, text=True, check=True)
        older = tuple(map(int, re.findall(r"\d+", version.stdout)[:2])) < (1, 21)
        # Debian 12 has 1.18, which stops at this line, as the runbook says.
        drop = (
            'for file; do :; done; sed -i "/^max_prepared_statements/d" "$file"\n' if older else ""
        )
        self._program("pgbouncer", f'{drop}exec {as_nobody}{bouncer} "$@"')

    def _found_in_repo(self, python: str) -> Path:
        command = ["sh", "dev/uv", "run", "--quiet", "python", "-c", python]
        done = subprocess.run(
            command,
            cwd=self.repo,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PlaceError(f"{python} failed:\n{done.stderr[-2000:]}")
        return Path(done.stdout.strip())

    def _program(self, name: str, commands: str) -> None:
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{commands}\n", encoding="utf-8")
        file.chmod(0o755)

    def _name_everything(self) -> None:
        """The variables of docs/runbooks/deploy.md and its neighbours."""
        app, admin, replicator = (secrets.token_hex(16) for _ in range(3))
        one, two, proxy, statistics, postgres, pooler, replica, cache, collector, sessions, s3 = (
            unused_ports(11)
        )
        new_proxy, new_statistics, new_cache, new_sessions = unused_ports(4)
        data, replica_data = self.servers / "primary", self.servers / "replica"
        servers = ("postgres", data, postgres), ("replica", replica_data, replica)
        for name, folder, port in servers:
            server = f"pg_ctl -D {folder} -l {folder}.log -w -m fast -o '-p {port}'"
            for verb in ("start", "stop", "restart"):
                self._program(f"{verb}-{name}", f"{server} {verb}")
        # The repo's own receiver of OTLP, in place of a Collector.
        receiver = f".venv/bin/python dev/telemetry/traces_server.py {collector}"
        self._program(
            "start-collector",
            'cd -P "$SITE/release"\n'
            f"PYTHONPATH=. {receiver} </dev/null >{self.folder}/collector.log 2>&1 &\n"
            f"echo $! >{self.folder}/collector.pid\n"
            f"until curl -fsS -o /dev/null http://127.0.0.1:{collector}/; do sleep 0.1; done",
        )
        pid = f"{self.folder}/collector.pid"
        self._program("stop-collector", f'kill "$(cat {pid})" && rm {pid}')
        new = f"{self.folder}/new-haproxy"
        here = f"s/bind :8000/bind 127.0.0.1:{new_proxy}/; s/:8404/:{new_statistics}/"
        self._program(
            "start-proxy",
            f"sed '{here}' \"$1\" >{new}.cfg\n"
            f"haproxy -db -f {new}.cfg </dev/null >>{new}.log 2>&1 &\necho $! >{new}.pid\n"
            f"until curl -sS -o /dev/null http://127.0.0.1:{new_proxy}/; do sleep 0.1; done",
        )
        self._program("stop-proxy", f'kill -USR1 "$(cat {new}.pid)" && rm {new}.pid')
        self._program("move-name", f'echo "$1" >{self.folder}/name')
        as_replicator = f"user=replicator password={replicator}"
        url, new_url = f"http://127.0.0.1:{proxy}", f"http://127.0.0.1:{new_proxy}"
        self.variables = {
            "REPO": str(self.repo),
            "SITE": str(self.site),
            "ONE": one,
            "TWO": two,
            "URL": url,
            "BALANCER": f"http://127.0.0.1:{statistics}",
            "OLD_BALANCER": f"http://127.0.0.1:{statistics}",
            "NEW_BALANCER": f"http://127.0.0.1:{new_statistics}",
            "OLD_URL": url,
            "PROXY_URL": new_url,
            "START_PROXY": "start-proxy",
            "STOP_PROXY": "stop-proxy",
            "MOVE_NAME": "move-name",
            "POSTGRES": f"postgresql://postgres:{admin}@127.0.0.1:{postgres}/app",
            "DIRECT": f"postgresql://app:{app}@127.0.0.1:{postgres}/app",
            "POSTGRES_PLACE": f"host=127.0.0.1 port={postgres} dbname=app",
            "POSTGRES_CONF": str(data / "conf.d"),
            "POSTGRES_HBA": str(data / "pg_hba.conf"),
            "POSTGRES_DATA": str(data),
            "START_POSTGRES": "start-postgres",
            "STOP_POSTGRES": "stop-postgres",
            "RESTART_POSTGRES": "restart-postgres",
            "TO_POSTGRES": f"host=127.0.0.1 port={postgres} {as_replicator}",
            "POOLER": str(self.pooler),
            "POOLER_PORT": pooler,
            "POOLED": f"postgresql://app:{app}@127.0.0.1:{pooler}",
            "REPLICATOR_PASSWORD": replicator,
            # The hyphen: libpq writes quotes round such a value.
            "REPLICATION": f"postgresql://replicator:{replicator}@127.0.0.1:{postgres}"
            "/?application_name=replica-1",
            "REPLICA_ADDRESS": "127.0.0.1",
            "REPLICA": f"postgresql://postgres:{admin}@127.0.0.1:{replica}/app",
            "REPLICA_DIRECT": f"postgresql://app:{app}@127.0.0.1:{replica}/app",
            "REPLICA_REPLICATION": f"postgresql://replicator:{replicator}@127.0.0.1:{replica}",
            "REPLICA_CONF": str(replica_data / "conf.d"),
            "REPLICA_HBA": str(replica_data / "pg_hba.conf"),
            "RESTART_REPLICA": "restart-replica",
            "TO_REPLICA": f"host=127.0.0.1 port={replica} {as_replicator}",
            "REPLICA_DATA": str(replica_data),
            "REPLICA_PLACE": f"host=127.0.0.1 port={replica} dbname=app",
            "START_REPLICA": "start-replica",
            "STOP_REPLICA": "stop-replica",
            "COLLECTOR": f"http://127.0.0.1:{collector}",
            "START_COLLECTOR": "start-collector",
            "STOP_COLLECTOR": "stop-collector",
            "CACHE": str(self.cache),
            "CACHE_HOST": "127.0.0.1",
            "CACHE_PORT": cache,
            "NEW_CACHE": f"{self.cache}-2",
            "NEW_CACHE_HOST": "127.0.0.1",
            "NEW_CACHE_PORT": new_cache,
            "CACHE_PASSWORD": secrets.token_hex(16),
            "SESSIONS": str(self.sessions),
            "SESSIONS_HOST": "127.0.0.1",
            "SESSIONS_PORT": sessions,
            "NEW_SESSIONS": f"{self.sessions}-2",
            "NEW_HOST": "127.0.0.1",
            "NEW_PORT": new_sessions,
            "SESSIONS_PASSWORD": secrets.token_hex(16),
            "S3_SETTINGS": f"FILES_BUCKET={BUCKET} FILES_S3_ENDPOINT=http://127.0.0.1:{s3}",
            "FILES_ROWS": FILES_ROWS,
        }

    def _make_postgres(self) -> None:
        """As durable as Postgres is by default: fsync is on."""
        data = self.servers / "primary"
        admin, app = (re.split("[:@]", self.variables[name])[2] for name in ("POSTGRES", "DIRECT"))
        secret = self.servers / "password"
        secret.write_text(admin, encoding="utf-8")
        options = ["--username=postgres", f"--pwfile={secret}", "--auth=scram-sha-256"]
        place = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run("initdb", "-D", str(data), *options, *place, "--locale=C")
        secret.unlink()
        (data / "conf.d").mkdir()
        if os.geteuid() == 0:
            os.chown(data / "conf.d", NOBODY, NOBODY)
        port = self.variables["POSTGRES"].rpartition(":")[2].split("/")[0]
        with (data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
            conf.write(f"port = {port}\ntimezone = 'UTC'\ninclude_dir 'conf.d'\n")
        # The runbook must add the line that lets a replica in.
        hba = data / "pg_hba.conf"
        lines = hba.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "replication" not in line.split()[1:2]]
        hba.write_text("".join(kept), encoding="utf-8")
        self._run("pg_ctl", "-D", str(data), "-l", str(self.servers / "primary.log"), "-w", "start")
        server = self.variables["POSTGRES"].rpartition("/")[0]
        role = f"CREATE ROLE app LOGIN PASSWORD '{app}'"
        self._run("psql", f"{server}/postgres", "-c", role, "-c", "CREATE DATABASE app OWNER app")

    def _start_proxy(self) -> None:
        command = ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]
        self._program("start-balancer", self._in_background(" ".join(command), "haproxy"))
        with (self.folder / "haproxy.log").open("ab") as log:
            server = self.start(command, log)
        self._servers.append(server)
        (self.folder / "haproxy.pid").write_text(str(server.pid), encoding="utf-8")

    def _in_background(self, command: str, name: str) -> str:
        file = self.folder / name
        return f"{command} </dev/null >>{file}.log 2>&1 &\necho $! >{file}.pid"

    def _start_s3(self) -> None:
        self._run("start-s3")

    def _make_bucket(self) -> None:
        """Amazon's part: the bucket and its keys are there before the runbook begins."""
        (self.buckets / BUCKET).mkdir(parents=True)
        key, secret = "climb", secrets.token_hex(16)
        with (self.site / "app.env").open("a", encoding="utf-8") as variables:
            variables.write(f"AWS_ACCESS_KEY_ID='{key}'\nAWS_SECRET_ACCESS_KEY='{secret}'\n")
        address = self.variables["S3_SETTINGS"].rpartition("://")[2]
        options = f"--addr {address} --config '' --auth-key {key},{secret} {self.buckets}"
        answers = f"until curl -sS -o /dev/null http://{address}/; do sleep 0.1; done"
        begin = self._in_background(f"rclone serve s3 {options}", "s3")
        self._program("start-s3", f"{begin}\n{answers}")

    def _run(self, *command: str) -> str:
        # A server that stays would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            status = self.start(command, output).wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        if status != 0:
            raise PlaceError(f"{command[0]} failed:\n{text[-2000:]}")
        return text


def unused_ports(count: int) -> list[str]:
    """Linux gives such a port only to a program that names it: a server may start minutes later."""
    ports = []
    for _ in range(count):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))  # PgBouncer listens on all addresses
        atexit.register(holder.close)
        ports.append(str(holder.getsockname()[1]))
    return ports
