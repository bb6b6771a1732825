"""Compiles the packages of a project in uv's cache, which uv links into the .venv of each project.

Otherwise each of about 100 generated projects compiles them, for 4 s of processor time each.
"""

import compileall
import sys
from pathlib import Path

venv, cache = map(Path, sys.argv[1:])
linked = {file.stat().st_ino for file in venv.rglob("*.py")}
for package in (cache / "archive-v0").iterdir():
    files = [] if (package / "pyvenv.cfg").exists() else package.rglob("*.py")
    if any(file.stat().st_ino in linked for file in files):
        for folder in package.iterdir():
            # A wheel's folder of scripts must have no subfolder.
            if folder.is_dir() and folder.suffix != ".data":
                compileall.compile_dir(folder, quiet=1)
