# Rung's file: advancing to another stage may change it.
"""The part of the app that belongs to Rung. Each command imports it, so it handles Ctrl-C early."""

import sys
from pathlib import Path

# `-m` while Python looks for the command, then its file.
if sys.argv[0] == "-m" or Path(__file__).parents[1] in Path(sys.argv[0]).parents:
    from app.infra import commands

    commands.end_without_traceback()
