# Rung's file: advancing to another stage may change it.
"""`make load`."""

import pytest

from dev import load, ports


@pytest.mark.parametrize("host", ["http://127.0.0.1:{unused}", "127.0.0.1", "http://127.0.0.1:x"])
def test_a_host_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    host = host.format(unused=ports.unused())
    monkeypatch.setenv("HOST", host)
    monkeypatch.delenv("USERS", raising=False)

    with pytest.raises(SystemExit, match=f"Nobody answers at HOST={host}: "):
        load.main()
