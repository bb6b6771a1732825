"""A temporary git repository that builds, compares and merges trees."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rung.git import git, git_bytes, git_list, null_terminated, quoted


@dataclass(frozen=True)
class Entry:
    mode: str
    id: str

    @property
    def is_file(self) -> bool:
        return self.mode in {"100644", "100755"}


Tree = Mapping[str, Entry]


class Scratch:
    """Reads the project's objects but stores its own, so the project's .git does not change."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self.git_dir = folder / "scratch.git"
        self._at = f"--git-dir={self.git_dir}"
        if not self.git_dir.exists():
            self._create(project)

    def _create(self, project: Path) -> None:
        kind = git("rev-parse", "--show-object-format", cwd=project)
        git(
            "init", "--quiet", "--bare", "--template=", f"--object-format={kind}",
            str(self.git_dir), cwd=self.folder,
        )  # fmt: skip
        objects = (project / git("rev-parse", "--git-path", "objects", cwd=project)).resolve()
        (self.git_dir / "objects" / "info").mkdir(exist_ok=True)
        (self.git_dir / "objects" / "info" / "alternates").write_bytes(
            os.fsencode(f"{quoted(objects)}\n")
        )
        # The person's git settings must not influence a comparison.
        for key, value in {
            "core.autocrlf": "false",
            "core.attributesFile": os.devnull,
            "core.fileMode": "true",
            "core.quotePath": "false",
            "diff.noprefix": "false",
            "merge.conflictStyle": "merge",
        }.items():
            git(self._at, "config", key, value, cwd=self.folder)

    @property
    def objects(self) -> Path:
        return self.git_dir / "objects"

    def entries(self, tree: str) -> dict[str, Entry]:
        listed = git_list(self._at, "ls-tree", "-r", "-z", "--full-tree", tree, cwd=self.folder)
        found: dict[str, Entry] = {}
        for line in listed:
            meta, path = line.split("\t", 1)
            mode, _, id_ = meta.split()
            found[path] = Entry(mode, id_)
        return found

    def read_folder(self, folder: Path) -> dict[str, Entry]:
        """All files of a folder, including ignored ones."""
        index = self._index("read")
        git(
            self._at, f"--work-tree={folder}", "add", "--all", "--force", ".",
            cwd=folder, environment=index,
        )  # fmt: skip
        return self.entries(git(self._at, "write-tree", cwd=self.folder, environment=index))

    def tree(self, base: str, changes: Mapping[str, Entry | None]) -> str:
        """The tree base with these paths replaced, or removed where None."""
        index = self._index("write")
        git(self._at, "read-tree", base, cwd=self.folder, environment=index)
        null = "0" * len(base)
        lines = [
            f"{entry.mode} {entry.id}\t{path}" if entry else f"0 {null}\t{path}"
            for path, entry in changes.items()
        ]
        git(
            self._at, "update-index", "-z", "--index-info",
            cwd=self.folder, environment=index,
            stdin=null_terminated(lines),
        )  # fmt: skip
        return git(self._at, "write-tree", cwd=self.folder, environment=index)

    def content(self, entry: Entry) -> bytes:
        return git_bytes(self._at, "cat-file", "blob", entry.id, cwd=self.folder)

    def store(self, content: bytes) -> str:
        return git(
            self._at, "hash-object", "-w", "--stdin", "--no-filters",
            cwd=self.folder, stdin=content,
        )  # fmt: skip

    def merge(
        self, yours: Entry, base: Entry | None, theirs: Entry, name: str
    ) -> tuple[Entry, bool]:
        """The merged file, and whether it is free of conflicts; yours if it cannot be merged."""
        if not (yours.is_file and theirs.is_file and (base is None or base.is_file)):
            return yours, False
        mode = theirs.mode if base and yours.mode == base.mode else yours.mode
        if base and yours.id == base.id:
            return Entry(mode, theirs.id), True
        if yours.id == theirs.id or (base and theirs.id == base.id):
            return Entry(mode, yours.id), True
        files = [self.folder / f"merge-{side}" for side in ("yours", "base", "theirs")]
        for file, entry in zip(files, (yours, base, theirs), strict=True):
            file.write_bytes(self.content(entry) if entry else b"")
        done = subprocess.run(
            ["git", self._at, "merge-file", "-p",
             "-L", "yours", "-L", "before", "-L", name, *map(str, files)],
            cwd=self.folder, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode < 0 or done.returncode >= 128:
            return yours, False
        return Entry(mode, self.store(done.stdout)), done.returncode == 0

    def line_counts(self, before: str, after: str) -> dict[str, tuple[int, int]]:
        counts: dict[str, tuple[int, int]] = {}
        for line in git_list(
            self._at, "diff-tree", "-r", "-z", "--numstat", "--no-renames", before, after,
            cwd=self.folder,
        ):  # fmt: skip
            added, removed, path = line.split("\t", 2)
            counts[path] = (0, 0) if added == "-" else (int(added), int(removed))
        return counts

    def diff(self, before: str, after: str, *, colour: bool = False) -> str:
        when = "always" if colour else "never"
        return git(
            self._at, "diff-tree", "-r", "-p", "--no-renames", f"--color={when}",
            "--no-ext-diff", "--no-textconv", before, after, cwd=self.folder,
        )  # fmt: skip

    def check_out(self, tree: str, into: Path) -> None:
        """The tree's files as they are stored, without the person's line endings or filters."""
        into.mkdir()
        index = self._index("check-out")
        git(self._at, "read-tree", tree, cwd=self.folder, environment=index)
        git(
            self._at, f"--work-tree={into}", "checkout-index", "--all", "--quiet",
            cwd=into, environment=index,
        )  # fmt: skip

    def _index(self, name: str) -> dict[str, str]:
        file = self.folder / f"index-{name}"
        file.unlink(missing_ok=True)
        return {"GIT_INDEX_FILE": str(file)}
