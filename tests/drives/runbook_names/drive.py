"""Follows the commands of the runbooks that hold names, with those of another business.

Its processes only sleep with the variables of the app: how the app serves is for the other drives.
Runs in a generated repo of stage 4: python -m runbook_names.drive
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from dev import ports, postgres
from dev.cache import valkey

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

from runbook import blocks

PAGES = postgres.REPOSITORY / "docs/runbooks"
SECONDS = 120
ROLE = DATABASE = "Tea-House"
ODD = "@:/?#%&'\"\\$! *[x]^~`|;<>(){}"
SLEEPING = """
deploy() {
    for port in "$@"; do
        if [ -f "$SITE/$port.pid" ]; then kill "$(cat "$SITE/$port.pid")"; fi
        (set -a; . "$SITE/app.env"; exec sleep 600 > /dev/null 2>&1 < /dev/null) &
        echo $! > "$SITE/$port.pid"
    done
}
"""


class Site:
    def __init__(self, folder: Path, postgres_url: str) -> None:
        self.folder = folder
        self._programs = folder / "bin"
        self._programs.mkdir()
        self.password, self.redis_password = (secrets.token_hex(4) + ODD for _ in range(2))
        server = postgres_url.rpartition("@")[2]
        port = server.rpartition(":")[2]
        login = f"{ROLE}:{quote(self.password, safe='')}"
        pooler, cache, sessions, new_cache = (ports.unused() for _ in range(4))
        names = ("site", "pooler", "cache", "new-cache", "sessions", "conf.d")
        for name in names:
            (folder / name).mkdir()
        (folder / "pooler").chmod(0o777)  # root's PgBouncer runs as nobody
        self.variables = {
            "SITE": str(folder / "site"),
            "ONE": "1",
            "TWO": "2",
            "POSTGRES": f"{postgres_url}/{DATABASE}",
            "DIRECT": f"postgresql://{login}@{server}/{DATABASE}",
            "POSTGRES_PLACE": f"host=127.0.0.1 port={port} dbname={DATABASE}",
            "POSTGRES_CONF": str(folder / "conf.d"),
            "RESTART_POSTGRES": "true",
            "POOLER": str(folder / "pooler"),
            "POOLER_PORT": str(pooler),
            "POOLED": f"postgresql://{login}@127.0.0.1:{pooler}",
            "CACHE": str(folder / "cache"),
            "CACHE_HOST": "127.0.0.1",
            "CACHE_PORT": str(cache),
            "CACHE_PASSWORD": self.redis_password,
            "SESSIONS": str(folder / "sessions"),
            "SESSIONS_HOST": "127.0.0.1",
            "SESSIONS_PORT": str(sessions),
            "SESSIONS_PASSWORD": self.redis_password,
            "NEW_CACHE": str(folder / "new-cache"),
            "NEW_CACHE_HOST": "127.0.0.1",
            "NEW_CACHE_PORT": str(new_cache),
            "POOLED_BY_NAME": f"postgresql://{login}@localhost:{pooler}",
            "NEW_S3_SETTINGS": "FILES_BUCKET=tea-2 FILES_S3_REGION=here",
            "REPLICA_PLACE": f"host=/run port={port} dbname={DATABASE}",
            "REPLICA": f"postgresql://postgres@localhost/{DATABASE}",
            "OLD_ROLE": ROLE,
            "OLD_PASSWORD": self.password,
            "NEW_ROLE": f"{ROLE}-2",
            "NEW_PASSWORD": secrets.token_hex(16),
            "REDIS": "CACHE_URL SESSION_REDIS_URL",
            "NEW_REDIS_PASSWORD": secrets.token_hex(16),
        }
        libraries = postgres.environment()["LD_LIBRARY_PATH"]
        psql = f'LD_LIBRARY_PATH="{libraries}" exec {postgres.binaries() / "psql"} "$@"'
        self._program("psql", psql)
        self._program("valkey-server", f'exec {valkey.program()} "$@"')
        bouncer = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        as_nobody = (
            "setpriv --reuid=65534 --regid=65534 --clear-groups" if os.geteuid() == 0 else ""
        )
        # Debian 12 has 1.18, which stops at this line.
        older = 'sed -i "/^max_prepared_statements/d" "$3"'
        self._program("pgbouncer", f'{older}\nexec {as_nobody} {bouncer} "$@"')
        (folder / "site/release").symlink_to(postgres.REPOSITORY)
        # The last line of a file that somebody edited has no line break.
        self.settings.write_text(f"DATABASE_URL='{self.variables['DIRECT']}'\nSECRET_KEY='odd'")

    @property
    def settings(self) -> Path:
        return self.folder / "site/app.env"

    def _program(self, name: str, commands: str) -> None:
        (self._programs / name).write_text(f"#!/bin/sh\n{commands}\n", encoding="utf-8")
        (self._programs / name).chmod(0o755)

    def follow(
        self, page: str, section: str, *parts: str, without: str | tuple[str, ...] = "$."
    ) -> None:
        """Its commands of these parts. A line that `without` begins needs the app itself."""
        all_of_it = blocks(PAGES / page)
        chosen = [one for one in all_of_it if one.section.startswith(section) and one.part in parts]
        assert chosen, f"{page} has no commands in {section!r}"
        functions = [one.commands for one in all_of_it if not one.section]
        commands = [
            "\n".join(line for line in one.commands.splitlines() if not line.startswith(without))
            for one in chosen
        ]
        self.run("\n".join(functions + commands))

    def run(self, commands: str) -> str:
        functions = blocks(PAGES / "deploy.md")[0].commands
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{functions}\n{SLEEPING}\n{commands}"],
            cwd=postgres.REPOSITORY,
            env=os.environ | self.variables | {"PATH": f"{self._programs}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def end(self) -> None:
        for pid in self.folder.glob("*/*pid"):
            try:
                os.kill(int(pid.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                continue


@contextmanager
def site(stack: ExitStack) -> Iterator[Site]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
    folder.chmod(0o755)
    url = stack.enter_context(postgres.temporary_server(f"rung-names-{secrets.token_hex(4)}"))
    made = Site(folder, url.rpartition("/")[0])
    made.run(f"""
psql "{url}" -v ON_ERROR_STOP=1 -v role='{ROLE}' -v password="$OLD_PASSWORD" -q << 'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
SQL""")
    try:
        yield made
    finally:
        made.end()


def followed(here: Site) -> None:
    here.follow("to-stage-2.md", "1.", "do")
    here.follow("to-stage-2.md", "3.", "do")
    here.follow("to-stage-2.md", "3.", "check", without="curl")
    assert f"DATABASE_URL='{here.variables['POOLED']}/app'" in here.settings.read_text()
    assert "SECRET_KEY='odd'\n" in here.settings.read_text()
    for page, section in (
        ("cache/add-the-cache.md", "1."),
        ("redis_sessions/move-the-sessions.md", "1."),
    ):
        here.follow(page, section, "do", "check")
    here.follow("cache/add-the-cache.md", "2.", "do")
    here.follow("redis_sessions/move-the-sessions.md", "2.", "do")

    for page, section in (
        ("cache/upgrade-valkey.md", "2."),
        ("copies/loss-of-a-zone.md", "2."),
        ("s3/loss.md", "2."),
    ):
        before = sorted(here.settings.read_text().splitlines())
        for part in ("do", "do", "back"):  # the first try was killed
            here.follow(page, section, part, without=("rclone", "at_cache"))
            is_as_before = sorted(here.settings.read_text().splitlines()) == before
            assert is_as_before == (part == "back"), f"{page} {part}"
    pooler = here.folder / "pooler/pgbouncer.ini"
    before_it = pooler.read_text()
    [functions] = [one for one in blocks(PAGES / "replicas/failover.md") if not one.section]
    here.run(f"{functions.commands}\nexchange\nexchange")
    assert f"\napp = {here.variables['REPLICA_PLACE']} " in pooler.read_text()
    pooler.write_text(before_it)

    for part in ("do", "back", "back", "do", "check"):
        here.follow("rotation.md", "1.", part)
    here.follow("pooling/rotation.md", "1.", "do", "check")
    here.follow("cache/rotation.md", "1.", "do")
    here.follow("cache/rotation.md", "2.", "do", "check")
    key = here.run("in_app printenv SECRET_KEY_PREVIOUS")
    for _ in range(2):
        here.follow("rotation.md", "2.", "do")
        assert here.run("in_app printenv SECRET_KEY") == key
    here.follow("rotation.md", "2.", "check", without='psql "$POSTGRES"')
    here.follow("cache/rotation.md", "3.", "do", "check")
    here.follow("pooling/rotation.md", "3.", "do", "check")
    here.follow("rotation.md", "3.", "do")
    here.follow("rotation.md", "3.", "check", without="curl")
    here.follow("rotation.md", "3.", "back")
    here.run('psql "$DIRECT" -XAtc "SELECT session_user" | grep -qx "$OLD_ROLE"')


def main() -> None:
    with ExitStack() as stack:
        here = stack.enter_context(site(stack))
        followed(here)
    print(json.dumps({"followed": True}))


if __name__ == "__main__":
    main()
