# Rung's file: advancing to another stage may change it.
"""Refuses files with conflict markers: a bot may commit conflicts that Copier left."""

import sys

from dev import programs

MARKER = "^(<<<<<<<|>>>>>>>) "


def main() -> None:
    if marked := marked_files("."):
        sys.exit(f"Resolve the conflicts in {', '.join(marked)}. Then delete their markers.")


def marked_files(folder: str) -> list[str]:
    """Searches the files that git would commit, or every file if there is no repository yet."""
    in_git = programs.run("git", "rev-parse", cwd=folder, capture_output=True)
    where = ["--no-index", "--exclude-standard"] if in_git.returncode else ["--untracked"]
    words = ["grep", *where, "-l", "-I", "-E", MARKER, "--", "."]
    done = programs.run("git", *words, cwd=folder, capture_output=True, timeout=300)
    if done.returncode > 1:
        sys.exit(f"git grep failed: {done.stderr.strip()}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    main()
