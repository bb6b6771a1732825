# Rung's file: advancing to another stage may change it.
"""`make client`: write a typed Python client of the running app to client/."""

import os
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

GENERATOR = "openapi-python-client~=0.29.1"
FOLDER = "client"
GENERATED = "A client library for accessing "  # in its pyproject.toml


def main() -> None:
    refuse_to_overwrite(Path(FOLDER))
    host = os.environ.get("HOST") or f"http://localhost:{os.environ.get('PORT') or 8000}"
    schema = f"{host.rstrip('/')}/openapi.json"
    refuse_unless_it_answers(host, schema)
    status = subprocess.run(
        [
            *("sh", "dev/uv", "tool", "run", "--quiet", "--from", GENERATOR),
            *("openapi-python-client", "generate", "--url", schema),
            *("--meta", "uv", "--output-path", FOLDER, "--overwrite", "--fail-on-warning"),
        ]
    ).returncode
    if status != 0:
        sys.exit(status)
    print(f"Wrote {FOLDER}/. Use it elsewhere: uv add ./{FOLDER}, or build it: uv build {FOLDER}")


def refuse_to_overwrite(folder: Path) -> None:
    """A front end may have the same name. Git ignores it, so an overwritten file would be lost."""
    project = folder / "pyproject.toml"
    if project.is_file() and GENERATED in project.read_text(encoding="utf-8", errors="replace"):
        return
    if folder.is_dir() and any(folder.iterdir()):
        sys.exit(
            f"{FOLDER}/ holds files that are no generated client. Move them: make client writes "
            f"to {FOLDER}/, and .gitignore names it."
        )


def refuse_unless_it_answers(host: str, schema: str) -> None:
    try:
        with urlopen(schema, timeout=10):  # noqa: S310  # the developer's own address
            pass
    except (OSError, HTTPException, ValueError) as error:
        sys.exit(f"No API description at {schema}: {error}\nStart the app first: make dev")


if __name__ == "__main__":
    main()
