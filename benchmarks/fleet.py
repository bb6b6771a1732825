"""`rung fleet` on folders of bare repos: seconds and memory, and 20,000 by extrapolation."""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNG = Path(sys.executable).with_name("rung")
ANSWERS = ".copier-answers.yml"
SECONDS, MEBIBYTES = 30, 150  # for 2,000 repos on two cores


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--repos", type=int, nargs="+", default=[2000, 4000])
    arguments.add_argument("--drift", action="store_true")
    options = arguments.parse_args()
    measured: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        template, born = _template(Path(folder)), Path(folder) / "born"
        new = [str(RUNG), "new", str(born), "--template", str(template), "--defaults"]
        subprocess.run([*new, "--stage", "3"], check=True, capture_output=True)
        print("| repos | seconds | MiB |\n|---|---|---|")
        for count in options.repos:
            _fleet(Path(folder) / "fleet", born, count)
            seconds, memory = _measure(Path(folder) / "fleet", template, drift=options.drift)
            measured.append((count, seconds, memory))
            print(f"| {count:,} | {seconds:.1f} | {memory:.0f} |", flush=True)
    if len(measured) > 1:
        (n0, s0, m0), (n1, s1, m1) = measured[0], measured[-1]
        seconds = s1 + (20_000 - n1) * (s1 - s0) / (n1 - n0)
        memory = m1 + (20_000 - n1) * (m1 - m0) / (n1 - n0)
        print(f"| 20,000, extrapolated | {seconds:.0f} | {memory:.0f} |")
    missed = [
        count
        for count, seconds, memory in measured
        if not options.drift and count <= 2000 and (seconds > SECONDS or memory > MEBIBYTES)
    ]
    sys.exit(f"A target is missed: {SECONDS} s, {MEBIBYTES} MiB" if missed else 0)


def _template(folder: Path) -> Path:
    clone = folder / "rung"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "tag", "--force", "v9999.0.0"], cwd=clone, check=True)
    return clone


def _measure(fleet: Path, template: Path, *, drift: bool) -> tuple[float, float]:
    command = [str(RUNG), "fleet", str(fleet), "--template", str(template), "--json"]
    started = time.perf_counter()
    command += ["--drift"] if drift else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # Its own peak: git's processes are small, short-lived and bounded in number.
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"rung fleet failed: {status}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def _fleet(fleet: Path, born: Path, count: int) -> None:
    """Bare repos with one pack of a real repo's files, and a commit with its own answers."""
    base = fleet.parent / "base.git"
    if not base.exists():
        clone = ["git", "clone", "--quiet", "--bare", "--template=", str(born), str(base)]
        subprocess.run(clone, check=True)
        subprocess.run(["git", "repack", "-adq"], cwd=base, check=True)
    fleet.mkdir(exist_ok=True)
    tree = subprocess.check_output(["git", "cat-file", "tree", "HEAD^{tree}"], cwd=base)
    answers = (born / ANSWERS).read_text(encoding="utf-8")
    for number in range(len(list(fleet.iterdir())), count):
        repo = fleet / f"service-{number:05}.git"
        shutil.copytree(base, repo, copy_function=os.link)
        own = re.sub(r"(?m)^stage: .*$", f"stage: {1 + number % 4}", answers)
        blob = _store(repo, b"blob", re.sub(r"(?m)^team: .*$", f"team: t{number}", own).encode())
        entry = b"100644 " + ANSWERS.encode() + b"\0"
        at = tree.index(entry) + len(entry)
        changed = _store(repo, b"tree", tree[:at] + blob + tree[at + len(blob) :])
        who = b"A <a@example.com> 1700000000 +0000"
        words = b"tree %s\nauthor %s\ncommitter %s\n\nStart\n" % (changed.hex().encode(), who, who)
        commit = _store(repo, b"commit", words)
        (repo / "HEAD").unlink()
        (repo / "HEAD").write_text("ref: refs/heads/main\n")
        (repo / "refs" / "heads").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / "heads" / "main").write_text(f"{commit.hex()}\n")


def _store(repo: Path, kind: bytes, content: bytes) -> bytes:
    stored = b"%s %d\0" % (kind, len(content)) + content
    digest = hashlib.sha1(stored, usedforsecurity=False)
    file = repo / "objects" / digest.hexdigest()[:2] / digest.hexdigest()[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(zlib.compress(stored, 1))
    return digest.digest()


if __name__ == "__main__":
    main()
