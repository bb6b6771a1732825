"""The README's two commands from nothing: seconds to a running service, and to its tests' end."""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 900


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=3, help="of each kind: 3")
    arguments.add_argument("--no-tests", action="store_true", help="only until the app answers")
    options = arguments.parse_args()
    runs = options.runs
    measured: dict[str, dict[str, list[float]]] = {}
    for run in range(runs):
        with tempfile.TemporaryDirectory() as caches:
            environment = _environment(Path(caches))
            # The first finds no uv, no package and no wheel: it fetches them. Python is there.
            for kind in ("cold", "warm"):
                for step, seconds in _first_minutes(
                    environment, tests=not options.no_tests
                ).items():
                    measured.setdefault(step, {}).setdefault(kind, []).append(seconds)
                print(f"run {run + 1} of {runs}, {kind}: done", flush=True)
    print(f"| p50 of {runs}, seconds | cold cache | warm cache |")
    print("|---|---|---|")
    for step, kinds in measured.items():
        cold, warm = (statistics.median(kinds[kind]) for kind in ("cold", "warm"))
        print(f"| {step} | {cold:.1f} | {warm:.1f} |")


def _environment(caches: Path) -> Mapping[str, str]:
    without_uv = [f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "uv").exists()]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("UV") and k != "VIRTUAL_ENV"}
    return {
        **kept,
        "PATH": os.pathsep.join(without_uv),
        "XDG_CACHE_HOME": str(caches),
        "UV_CACHE_DIR": str(caches / "uv"),
    }


def _first_minutes(environment: Mapping[str, str], *, tests: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        clone, shop = Path(folder, "rung"), Path(folder, "shop")

        def run(*command: str, at: Path = clone) -> None:
            done = subprocess.run(
                command, cwd=at, env=environment, timeout=SECONDS,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                sys.exit(done.stdout + done.stderr)

        steps: dict[str, Callable[[], object]] = {
            "git clone": lambda: run("git", "clone", "--quiet", str(ROOT), str(clone), at=ROOT),
            "make new": lambda: run("make", "new", "DEST=../shop"),
            "make dev, until it answers": lambda: _serve(shop, environment),
        }
        if tests:
            steps["make test, the first"] = lambda: run("make", "test", at=shop)
            steps["make test, again"] = lambda: run("make", "test", at=shop)
        seconds = {name: _timed(step) for name, step in steps.items()}
    return {**seconds, "from clone to answer": sum(list(seconds.values())[:3])}


def _timed(step: Callable[[], object]) -> float:
    """A step that returns a number has measured itself."""
    started = time.perf_counter()
    said = step()
    return said if isinstance(said, float) else time.perf_counter() - started


def _serve(shop: Path, environment: Mapping[str, str]) -> float:
    """Until the first answer; stopping is not counted."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.perf_counter()
    with (shop.parent / "log").open("w") as log:
        server = subprocess.Popen(
            ["make", "dev", f"PORT={port}"],
            cwd=shop, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        while not _answers(f"http://127.0.0.1:{port}/live"):
            if server.poll() is not None or time.perf_counter() - started > SECONDS:
                sys.exit((shop.parent / "log").read_text())
            time.sleep(0.05)
        return time.perf_counter() - started
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
