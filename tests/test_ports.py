"""A port chosen for a server is still free when the server starts, however late that is."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import free_port, keep_port


def kept() -> int:
    keep_port(Path("port"))
    return int(Path("port").read_text(encoding="utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep a port free")
@pytest.mark.parametrize("choose", [free_port, kept])
def test_nobody_else_gets_a_port_that_was_chosen_but_its_server_does(
    choose: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    port = choose()

    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    for address in ("127.0.0.1", "127.0.0.2", ""):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((address, port))
    for address in ("127.0.0.1", ""):
        with (
            socket.create_server((address, port)),
            socket.create_connection(("127.0.0.1", port)),
        ):
            pass


def test_a_port_that_is_taken_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "port"
    keep_port(file)
    first = file.read_text(encoding="utf-8")
    keep_port(file)
    assert file.read_text(encoding="utf-8") == first

    with socket.create_server(("127.0.0.1", int(first))):
        keep_port(file)
    assert file.read_text(encoding="utf-8") != first
