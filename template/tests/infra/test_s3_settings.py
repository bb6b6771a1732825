# Rung's file: advancing to another stage may change it.
import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.infra import environment, s3_signing
from app.infra.environment import EnvironmentIncomplete
from app.infra.file_move import FileSettings, bucket_of
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app
from tests.infra.test_s3 import HELLO, send, until, with_pictures


@pytest.mark.usefixtures("services")
async def test_with_files_in_s3_no_folder_is_needed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FILES_FOLDER")
    async with serve(with_pictures(bare_app())) as client:
        await send(client, HELLO)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"FILES_BUCKET": None}, "FILES_BUCKET: .*FILES_STORE=s3"),
        ({"FILES_STORE": None}, "FILES_BUCKET: .*set FILES_STORE too"),
        (
            {"FILES_STORE": "read-both", "FILES_FOLDER": None},
            "FILES_FOLDER: .*a folder that exists",
        ),
        ({"FILES_BUCKET": "Fotos"}, "FILES_BUCKET: "),
        ({"FILES_LINK_LIFETIME": "P8D"}, "FILES_LINK_LIFETIME: "),
    ],
)
@pytest.mark.usefixtures("services")
def test_settings_that_lead_nowhere_stop_the_process(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], complaint: str
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)

    with pytest.raises(EnvironmentIncomplete, match=complaint):
        bare_app()


@pytest.fixture
def without_keys(services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("without_keys")
def test_without_credentials_the_process_does_not_start() -> None:
    with pytest.raises(EnvironmentIncomplete, match="AWS_ACCESS_KEY_ID"):
        bare_app()


@pytest.mark.usefixtures("without_keys")
async def test_the_credentials_of_a_containers_role_are_found_and_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As ECS and EKS hand them out."""
    issued = 0

    async def issue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal issued
        await reader.readuntil(b"\r\n\r\n")
        issued += 1
        credentials = {
            "AccessKeyId": f"key-{issued}",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
        }
        body = json.dumps(credentials).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    monkeypatch.setattr(s3_signing, "LOOK_AGAIN_SECONDS", 0.01)
    async with await asyncio.start_server(issue, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/credentials"
        )
        found = await asyncio.to_thread(bucket_of, environment.read(FileSettings))
        async with found as bucket:
            link = bucket.link("a", "image/png")
            assert "X-Amz-Security-Token=token" in link
            assert "Credential=key-" in link
            before = issued
            await until(lambda: f"Credential=key-{before + 1}" in bucket.link("a", "image/png"))
