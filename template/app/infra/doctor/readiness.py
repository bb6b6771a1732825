# Rung's file: advancing to another stage may change it.
"""Asks the app's /ready which servers it cannot reach."""

import argparse
import json
import os
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError

from app.infra.doctor.evidence import Skipped

SECONDS = 5.0
MOST_BYTES = 10_000


def address(given: str) -> str:
    if not given.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{given} does not begin with http:// or https://")
    return given.rstrip("/")


def look(url: str | None) -> tuple[list[str], list[Skipped]]:
    url = url or f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
    try:
        body = _answer(f"{url}/ready")
        found = json.loads(body)["unavailable"]
        return [str(name)[:80] for name in found[:20]], []
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = f"no answer: {getattr(reason, 'strerror', None) or reason}"
    except (ValueError, KeyError, TypeError, RecursionError):
        why = "it does not answer as the app does"
    return [], [Skipped(source="/ready", why=why, remedy="--url URL of the running app")]


def _answer(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310  # see address()
            found: bytes = answer.read(MOST_BYTES)
            return found
    except HTTPError as error:  # 503 has the same body
        return error.read(MOST_BYTES)
