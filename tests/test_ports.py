"""A port chosen for a server is still free when the server starts, however late that is."""

import socket
import sys

import pytest
from serving import free_port


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep a port free")
def test_nobody_else_gets_a_port_that_was_chosen_but_its_server_does() -> None:
    port = free_port()

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
