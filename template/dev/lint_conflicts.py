# Rung's file: advancing to another stage may change it.
"""Refuse files with conflict markers: a bot may commit what Copier could not merge."""

import subprocess
import sys

MARKER = "^(<<<<<<<|>>>>>>>) "


def main() -> None:
    if marked := marked_files("."):
        sys.exit(f"Resolve the conflicts in {', '.join(marked)}. Then delete their markers.")


def marked_files(folder: str) -> list[str]:
    """Looks at all files that git would commit, or at all files if there is no repository yet."""
    in_git = subprocess.run(["git", "rev-parse"], cwd=folder, capture_output=True)
    where = ["--no-index", "--exclude-standard"] if in_git.returncode else ["--untracked"]
    done = subprocess.run(
        ["git", "grep", *where, "-l", "-I", "-E", MARKER, "--", "."],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode > 1:
        sys.exit(f"git grep failed: {done.stderr.strip()}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    main()
