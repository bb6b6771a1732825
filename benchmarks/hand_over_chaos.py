"""Orders and catalog in two Postgres, with crashes between them, and servers that are killed:

    uv run python ../rung/benchmarks/hand_over_chaos.py --minutes 10

Run it inside a generated repo of stage 4 with module_databases, as it was rendered. A copy of the
repo gets the patch of the hand-over, a history of orders, and tests/drives/hand_over of Rung, whose
chaos.py has the options.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hand_over import patched_copy

DRIVE = Path(__file__).parents[1] / "tests/drives/hand_over"
MIGRATION = ("dev", sys.executable, "-m", "dev.module_databases.migration", "orders", "the orders")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres' own user must be able to enter it
        copy = patched_copy(Path(folder))
        shutil.copytree(DRIVE, copy / DRIVE.name)
        subprocess.run([sys.executable, "-m", *MIGRATION], cwd=copy, check=True)
        chaos = [sys.executable, "-m", f"{DRIVE.name}.chaos", *sys.argv[1:]]
        return subprocess.run(chaos, cwd=copy, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
