"""Finds the template that a fleet is measured by."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rung.errors import RungError
from rung.fleet.survey import Line
from rung.git import git
from rung.origin import Origin, fetchable
from rung.template import find_template, is_git_url


@contextmanager
def measured_by(named: str | None, *, needed: bool, objects: bool) -> Iterator[Line | None]:
    """None when rung does not know its template, which --template would name.

    objects: its files are needed too, so a remote template is cloned, once.
    """
    try:
        src = find_template(named).src
    except RungError as error:
        if needed or named:
            raise
        print(f"rung: Versions behind are not counted: {error}", file=sys.stderr)
        yield None
        return
    line = Line.of(Origin(src, None if is_git_url(src) else Path(src)))
    if not (objects and line.origin.folder is None):
        yield line
        return
    with tempfile.TemporaryDirectory(prefix="rung-fleet-") as folder:
        clone = Path(folder) / "template.git"
        git("clone", "--quiet", "--bare", "--", fetchable(src), str(clone), cwd=Path(folder))
        yield replace(line, origin=Origin(src, clone))
