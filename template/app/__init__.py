"""The app, and its commands: `python -m app.seed`."""

import sys

if sys.argv[0] == "-m":  # Python is about to import a command
    from app.infra import commands

    commands.end_without_traceback()
