"""`rung new` against plain Copier and git, as whole processes, interleaved."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMIT = ["git", "commit", "--quiet", "--message=Start"]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=10)
    rounds = arguments.parse_args().rounds
    uv = os.environ.get("UV") or shutil.which("uv") or sys.exit("uv is needed.")
    without_uv = {**os.environ, "UV": "/nonexistent"}
    measured: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, run in {
            "copier + git": lambda dest: _copier(dest, None),
            "rung new, no lock": lambda dest: _rung(dest, without_uv),
            "copier + uv lock + git": lambda dest: _copier(dest, uv),
            "rung new": lambda dest: _rung(dest, dict(os.environ)),
        }.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                run(Path(folder) / "shop")
                if turn:  # the first round only warms up
                    measured.setdefault(name, []).append(time.perf_counter() - started)
    print("| what | p50 s | p99 s | of plain |")
    print("|---|---|---|---|")
    for plain, rung in (
        ("copier + git", "rung new, no lock"),
        ("copier + uv lock + git", "rung new"),
    ):
        for name in (plain, rung):
            ratio = statistics.median(
                a / b for a, b in zip(measured[name], measured[plain], strict=True)
            )
            p99 = statistics.quantiles(measured[name], n=100, method="inclusive")[98]
            print(f"| {name} | {statistics.median(measured[name]):.2f} | {p99:.2f} | {ratio:.2f} |")


def _rung(dest: Path, environment: dict[str, str]) -> None:
    command = [_beside_python("rung"), "new", str(dest), "--defaults", "--template", str(ROOT)]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def _copier(dest: Path, uv: str | None) -> None:
    copy = [_beside_python("copier"), "copy", "--quiet", "--defaults", "--vcs-ref=HEAD"]
    subprocess.run([*copy, str(ROOT), str(dest)], check=True, capture_output=True)
    if uv:
        subprocess.run([uv, "lock", "--quiet"], cwd=dest, check=True, capture_output=True)
    for step in (["git", "init", "--quiet"], ["git", "add", "--all"], COMMIT):
        subprocess.run(step, cwd=dest, check=True, capture_output=True)


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


if __name__ == "__main__":
    main()
