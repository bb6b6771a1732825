"""`rung advance` and `rung status` against plain `copier update`: interleaved processes."""

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
BESIDE = Path(sys.executable).parent
STATUS_SECONDS = 1.0


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=10)
    rounds = arguments.parse_args().rounds
    uv = os.environ.get("UV") or shutil.which("uv") or sys.exit("uv is needed.")
    update = [BESIDE / "copier", "update", "--quiet", "--defaults", "--vcs-ref=:current:"]
    plain = [*update, "--data=stage=2"]
    advance = [BESIDE / "rung", "advance", "--yes"]
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        shop = _project(Path(folder) / "shop", lock=False)
        locked = _project(Path(folder) / "locked", lock=True)
        measured = _in_turn(
            rounds,
            {
                "copier update": (shop, [plain]),
                "rung advance": (shop, [advance]),
                "rung advance --dry-run": (shop, [[BESIDE / "rung", "advance", "--dry-run"]]),
                "rung status": (shop, [[BESIDE / "rung", "status"]]),
                "copier update, uv lock": (locked, [plain, [uv, "lock", "--quiet"]]),
                "rung advance, locked": (locked, [advance]),
            },
        )
    print("| what | p50 s | p99 s | of plain | at most |")
    print("|---|---|---|---|---|")
    for name, base, limit in (
        ("copier update", "copier update", None),
        ("rung advance", "copier update", 1.5),
        ("rung advance --dry-run", "copier update", 2.0),
        ("copier update, uv lock", "copier update, uv lock", None),
        ("rung advance, locked", "copier update, uv lock", 1.5),
        ("rung status", "copier update", None),
    ):
        taken = measured[name]
        ratio = statistics.median(a / b for a, b in zip(taken, measured[base], strict=True))
        p99 = statistics.quantiles(taken, n=100, method="inclusive")[98]
        p50 = statistics.median(taken)
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {ratio:.2f} | {limit or ''} |")
        missed |= limit is not None and ratio > limit
        missed |= name == "rung status" and p50 > STATUS_SECONDS
    sys.exit(missed)


def _project(folder: Path, *, lock: bool) -> Path:
    environment = dict(os.environ) if lock else {**os.environ, "UV": "/nonexistent"}
    new = [BESIDE / "rung", "new", folder, "--defaults", "--template", ROOT]
    subprocess.run(new, env=environment, check=True, capture_output=True)
    return folder


def _in_turn(
    rounds: int, contestants: dict[str, tuple[Path, list[list[str | Path]]]]
) -> dict[str, list[float]]:
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, (project, commands) in contestants.items():
            started = time.perf_counter()
            for command in commands:
                subprocess.run(command, cwd=project, check=True, capture_output=True)
            if turn:  # the first round only warms up
                measured[name].append(time.perf_counter() - started)
            for undo in (["restore", "--staged", "--worktree", "."], ["clean", "-fdq"]):
                subprocess.run(["git", *undo], cwd=project, check=True)
    return measured


if __name__ == "__main__":
    main()
