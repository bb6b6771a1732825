"""A real Chromium without a network, driven over a pipe: as a phone, or in dark mode."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

# Only this machine can be reached, so a page that loads a script from elsewhere stays empty.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
SECONDS = 300


class Page:
    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers = commands, answers
        self._id = 0
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]

    def looks_like(self, *, width: int = 1100, height: int = 800, scheme: str = "light") -> None:
        """The window's size in CSS pixels, and whether the person prefers dark pages."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", features=features)

    def goes_to(self, url: str) -> None:
        self._ask("Page.navigate", url=url)
        self.waits_for(
            f"location.href.startsWith({json.dumps(url)}) && document.readyState=='complete'"
        )

    def waits_for(self, script: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.finds(script):
            assert time.monotonic() < deadline, (script, self.finds("document.body.innerText"))
            time.sleep(0.1)

    def finds(self, script: str) -> Any:
        """Returns the value of the script, which runs in this page."""
        done = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        return done["result"].get("value")

    def is_seen_in(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        asked: dict[str, Any] = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        self._commands.write(json.dumps(asked).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != self._id:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        read = bytearray()
        while (one := self._answers.read(1)) != b"\0":
            assert one, "Chromium has ended"
            read += one
        answer: dict[str, Any] = json.loads(read)
        return answer


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None and "CI" not in os.environ:
        pytest.skip("there is no Chromium here")
    assert program
    commands, write = os.pipe()
    read, answers = os.pipe()
    # Chromium reads commands from file 3 and answers in file 4.
    moved = 'exec "$@" 3<&"$0" 4>&"$ANSWERS"'
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", OFFLINE)
    process = subprocess.Popen(
        ["bash", "-c", moved, str(commands), program, *flags, f"--user-data-dir={profile}"],
        pass_fds=(commands, answers),
        env={**os.environ, "ANSWERS": str(answers)},
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    with os.fdopen(write, "wb") as to_it, os.fdopen(read, "rb") as from_it:
        try:
            yield Page(to_it, from_it)
        finally:
            process.terminate()
            process.wait(SECONDS)
