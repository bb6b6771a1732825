# Rung's file: advancing to another stage may change it.
"""/ready of a running app, as the doctor asks it."""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.infra.doctor import readiness


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("status", [200, 503])
def test_servers_that_the_app_cannot_reach_are_named(status: int) -> None:
    """At stage 4 a copy stays ready without Redis and S3."""
    with answering(status, b'{"status": "ok", "unavailable": ["database"]}') as url:
        assert readiness.look(url) == (["database"], [])


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"unavailable": 7}', b"\xff"])
def test_another_program_at_that_address_is_skipped(body: bytes) -> None:
    with answering(200, body) as url:
        unavailable, [skipped] = readiness.look(url)

    assert unavailable == []
    assert "--url" in skipped.remedy


def test_an_app_that_is_away_is_skipped() -> None:
    unavailable, [skipped] = readiness.look("http://127.0.0.1:1")

    assert (unavailable, skipped.source) == ([], "/ready")


@pytest.mark.parametrize("given", ["shop", "file:///etc/passwd", "ftp://shop"])
def test_only_http_addresses_are_accepted(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        readiness.address(given)
