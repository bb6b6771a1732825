"""Finds the template that a fleet is compared with."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rung.errors import RungError, UsageError, without_password
from rung.fleet.survey import Line
from rung.git import git
from rung.origin import Origin, fetchable
from rung.template import find_template, is_git_url


@contextmanager
def measured_by(named: str | None, *, needed: bool, objects: bool) -> Iterator[Line | None]:
    """Yields None when rung does not know its template and --template does not name one.

    objects: its files are needed too, so a remote template is cloned, once.
    """
    try:
        src = find_template(named).src
    except RungError as error:
        if needed or named:
            raise
        said = without_password(str(error))
        print(f"rung: Versions behind are not counted: {said}", file=sys.stderr)
        yield None
        return
    line = Line.of(Origin(src, None if is_git_url(src) else Path(src)))
    if not (objects and line.origin.folder is None):
        yield line
        return
    with tempfile.TemporaryDirectory(prefix="rung-fleet-") as folder:
        # Not bare: with safe.bareRepository git would not read it.
        clone = Path(folder) / "template"
        how = ["--quiet", "--no-checkout", "--template="]
        git("clone", *how, "--", fetchable(src), str(clone), cwd=Path(folder))
        yield replace(line, origin=Origin(src, clone))


def version_to_reach(line: Line, ref: str | None) -> str:
    if not line.tags:
        raise RungError(f"The template {line.origin.src} has no version tags. Tag one: v1.0.0")
    newest = line.tags[-1]
    if ref not in {None, *line.tags}:
        raise UsageError(
            f"--ref {ref} is not a version of the template {line.origin.src}. Name one of its "
            f"tags, such as {newest}."
        )
    return ref or newest
