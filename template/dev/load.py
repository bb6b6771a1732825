# Rung's file: advancing to another stage may change it.
"""`make load`: run Locust against HOST, or against one process of the app on a new database."""

import csv
import importlib.util
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from dev import migrate, ports, postgres, programs, services
from dev.server import Server, ServerError

REPORT = postgres.REPOSITORY / ".dev" / "load.html"
FILES = 10_000  # as Locust


def main() -> None:
    refuse_wrong_size(os.environ["USERS"], os.environ["DURATION"])
    if host := os.environ.get("HOST"):
        refuse_unless_it_answers(host)
        sys.exit(_locust(host))
    try:
        with _database_and_files() as environment:
            allow_many_connections()
            with App(postgres.state_folder() / "app-load", environment).running() as app:
                status = _locust(app.url)
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status)


def refuse_wrong_size(users: str, duration: str) -> None:
    """Locust would refuse a wrong value only after a database and a server have started."""
    if not re.fullmatch("[0-9]{1,6}", users) or int(users) == 0:
        sys.exit(f"USERS={users} is not a number of users. Write USERS=20.")
    if not re.fullmatch("(?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s?)?", duration):
        sys.exit(f"DURATION={duration} is not a time. Write DURATION=30s, or 2m, or 1h30m.")


def refuse_unless_it_answers(host: str) -> None:
    try:
        with urlopen(host, timeout=10):  # noqa: S310  # the developer's own address
            pass
    except HTTPError:  # an answer too
        pass
    except (OSError, HTTPException, ValueError) as error:
        sys.exit(f"Nothing answers at HOST={host}: {error}\nGive the app's address: HOST=https://…")


def _locust(host: str) -> int:
    users = os.environ["USERS"]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        load = programs.run(
            *("locust", "--locustfile", "tests/load/locustfile.py", "--headless"),
            *("--only-summary", "--loglevel", "WARNING", "--csv", f"{folder}/load"),
            *("--html", str(REPORT)),
            *("--users", users, "--spawn-rate", users, "--run-time", os.environ["DURATION"]),
            *("--host", host),
        )
        if REPORT.exists():
            print(f"\nThe curve and the table as one page: {REPORT}")
        if _served(Path(folder, "load_stats.csv")):
            return load.returncode
    print("No request was served: see the errors above, or raise DURATION.", file=sys.stderr)
    return load.returncode or 1


def _served(stats: Path) -> int:
    if not stats.exists():
        return 0
    with stats.open(encoding="utf-8") as rows:
        total = next((row for row in csv.DictReader(rows) if row["Name"] == "Aggregated"), None)
    return int(total["Request Count"]) - int(total["Failure Count"]) if total else 0


@contextmanager
def _database_and_files() -> Iterator[dict[str, str]]:
    with postgres.for_load() as url, tempfile.TemporaryDirectory() as files:
        given = {**os.environ, "DATABASE_URL": url, "FILES_FOLDER": files}
        with services.environment(given) as environment:
            migrate.upgrade(environment)
            if importlib.util.find_spec("app.seed"):
                programs.run_module("app.seed", environment=environment)
            yield environment


def allow_many_connections() -> None:
    """A terminal of macOS allows its programs 256 open files. The server inherits this limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class App(Server):
    name = "The app"

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._environment = environment

    def command(self) -> Sequence[str]:
        uvicorn = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory"]
        return [*uvicorn, "--port", str(self.port), "--no-access-log", "--no-server-header"]

    def environment(self) -> Mapping[str, str]:
        return {**self._environment, "LOG_FORMAT": "json"}

    def serves(self) -> bool:
        with suppress(OSError), urlopen(f"{self.url}/ready", timeout=2):  # noqa: S310  # our own server's address
            return True
        return False

    def _start_unless_running(self) -> subprocess.Popen[bytes]:
        ports.keep(self.folder / "port")  # never one that runs already
        return self.start()


if __name__ == "__main__":
    main()
