"""Records a session: python scripts/recording.py runs it and writes docs/pictures/recording.svg.

It takes two minutes, because everything in it really happens: new, dev, advance, and a copy that
is killed under load.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from urllib.request import urlopen

REPO = Path(__file__).parents[1]
RECORDING = REPO / "docs" / "pictures" / "recording.svg"

COLUMNS, ROW, MARGIN = 92, 19, 16
LONGEST_WAIT = 1.5  # seconds between two lines of the recording
READY_SECONDS = 180

STYLE = """
svg { background: #14171b } text { font: 13px ui-monospace, monospace; fill: #c9d1d9; opacity: 0;
white-space: pre; animation: appear 1ms forwards } .typed { fill: #7ee787; font-weight: 600 }
@keyframes appear { to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation-delay: 0s !important } }
"""


class Session:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.lines: list[tuple[float, str]] = []  # seconds since the line before
        self._port = port
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
            "PORT": str(port),
            "RUNG_TEMPLATE": str(REPO),
            "NO_COLOR": "1",
            "COLUMNS": str(COLUMNS),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self._last = time.monotonic()

    def type(self, command: str, *, show: str = ".", last: int = 100) -> None:
        """Runs it, and shows the last of the lines that match."""
        self._note(f"$ {command}")
        done = subprocess.run(
            ["sh", "-c", command.replace(":8000", f":{self._port}")],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"{command}\n{done.stdout}")
        shown = [line for line in done.stdout.splitlines() if re.search(show, line)]
        self._note(*shown[-last:], "")

    @contextmanager
    def running(self, command: str, *, until: str, show: str = ".") -> Iterator[None]:
        self._note(f"$ {command}")
        log = self.folder.parent / "log"
        with log.open("w", encoding="utf-8") as output:
            server = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._wait(until, log, server)
            shown = log.read_text(encoding="utf-8").splitlines()
            self._note(*(line for line in shown if re.search(show, line)), "")
            yield
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=60)

    def _wait(self, until: str, log: Path, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not re.search(until, log.read_text(encoding="utf-8")) or not self._is_ready():
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=5):
                return True
        except OSError:
            return False

    def _note(self, *lines: str) -> None:
        for line in lines:
            now = time.monotonic()
            # Locust's columns are wide, and all but one of its spaces are of no use.
            wide = re.search("req/s|Aggregated", line)
            line = re.sub(" {3,}", "  ", line) if wide else line
            text = line.replace(f":{self._port}", ":8000").replace(str(self.folder.parent), "~")
            text = text.replace(str(REPO), "~/rung")
            text = re.sub(r"(://\w+:)\w+@", r"\1…@", text)
            wait = min(now - self._last, LONGEST_WAIT)
            self.lines.append((wait, text if len(text) < COLUMNS else f"{text[: COLUMNS - 1]}…"))
            self._last = now


def record(desk: Path) -> Session:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        session = Session(desk, unused.getsockname()[1])
    session.type("rung new shop --defaults", last=6)
    session.folder = desk / "shop"
    with session.running("make dev", until="Application startup", show="Seeded|^  "):
        session.type('curl -s "localhost:8000/products?limit=1"')
    session.type("rung advance --to 4 --yes --commit", last=7)
    with session.running("make stack COPIES=2", until="Table", show="App|app-|haproxy|NAME"):
        pid = Path(session.folder, ".dev/stack/app-1/server.pid").read_text(encoding="utf-8")
        session.type(
            f"(sleep 4; kill -9 {pid}) & make load HOST=http://127.0.0.1:8000 DURATION=8s",
            show="req/s|Aggregated.*%",
            last=2,
        )
        session.type("make stack-status", show="haproxy|app-")
    return session


def drawn(lines: list[tuple[float, str]]) -> str:
    height = 2 * MARGIN + ROW * len(lines)
    texts = []
    at = 0.0
    for n, (wait, line) in enumerate(lines):
        at += wait
        kind = ' class="typed"' if line.startswith("$ ") else ""
        y = MARGIN + ROW * (n + 0.7)
        texts.append(
            f'<text{kind} x="{MARGIN}" y="{y:g}" style="animation-delay:{at:.2f}s">'
            f"{escape(line)}</text>"
        )
    inside = "\n".join(texts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 {height}" role="img">'
        f"<title>new, dev, advance, and a copy that dies under load</title>"
        f'<style>{STYLE}</style>\n<rect width="780" height="{height}" rx="8" fill="#14171b"/>\n'
        f"{inside}\n</svg>\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # when this runs as root, Postgres runs as nobody
        desk = Path(folder, "desk")
        desk.mkdir()
        RECORDING.write_text(drawn(record(desk).lines), encoding="utf-8")
