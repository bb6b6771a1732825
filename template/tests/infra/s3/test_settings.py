# Rung's file: advancing to another stage may change it.
"""Tests of the settings of files in S3."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from botocore.config import Config
from structlog.testing import capture_logs

from app.infra import environment
from app.infra.environment import EnvironmentIncomplete
from app.infra.s3 import bucket, signing
from app.infra.s3.settings import FileSettings, Step, bucket_of
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app, until
from tests.infra.s3.test_bucket import HELLO, send, with_pictures
from tests.infra.s3.test_failures import said


@pytest.mark.parametrize(
    ("region", "address"),
    [
        ("eu-central-1", "https://shop-files.s3.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "https://shop-files.s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "https://shop-files.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_amazons_address_follows_from_the_region(
    monkeypatch: pytest.MonkeyPatch, region: str, address: str
) -> None:
    monkeypatch.delenv("FILES_S3_ENDPOINT", raising=False)

    given = FileSettings(store=Step.S3, bucket="shop-files", s3_region=region)

    assert given.s3_address == address


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
        (
            {"FILES_BUCKET": "fotos", "FILES_S3_ENDPOINT": "https://s3.example.com/fotos/"},
            "FILES_S3_ENDPOINT: .*no bucket",
        ),
        ({"FILES_LINK_LIFETIME": "P8D"}, "FILES_LINK_LIFETIME: "),
    ],
)
@pytest.mark.usefixtures("services")
def test_invalid_settings_stop_the_process(
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


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem", "SSL_CERT_FILE, SSL_CERT_DIR: .*No such file"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE, SSL_CERT_DIR: .*no certificate"),
        ("HTTPS_PROXY", "socks5://proxy:1080", "HTTPS_PROXY, .*: Using SOCKS proxy, but"),
        ("HTTPS_PROXY", "http://shop:se/cret@proxy:3128", "HTTPS_PROXY, .*: httpx cannot read"),
        ("NO_PROXY", "localhost,fd00::/8", "NO_PROXY: httpx cannot read"),
    ],
)
@pytest.mark.usefixtures("services")
def test_variables_of_the_network_that_cannot_be_used_stop_the_process_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    bucket._tls.cache_clear()  # private; earlier tests have read the certificates
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)

    with pytest.raises(EnvironmentIncomplete, match=complaint) as stopped:
        bare_app()

    assert "'se'" not in str(stopped.value)  # httpx takes the part before the slash for a port


@pytest.fixture
def service_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("signed by the cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/shop")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@asynccontextmanager
async def issuer(answer: Callable[[int], bytes]) -> AsyncGenerator[str]:
    """Yields the URL of a server that answers request number n with answer(n)."""
    numbers = count(1)

    async def issue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(answer(next(numbers)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(issue, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# So close to their expiry that botocore renews them each time.
MINUTES = timedelta(minutes=5)


def of_a_container(number: int, lifetime: timedelta = MINUTES) -> bytes:
    credentials = {
        "AccessKeyId": f"key-{number}",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": (datetime.now(UTC) + lifetime).isoformat(),
    }
    return said("200 OK", json.dumps(credentials).encode())


def of_a_service_account(number: int, until: str = "") -> bytes:
    return said(
        "200 OK",
        f"""<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
            <AccessKeyId>key-{number}</AccessKeyId>
            <SecretAccessKey>secret</SecretAccessKey>
            <SessionToken>token</SessionToken>
            <Expiration>{until or (datetime.now(UTC) + MINUTES).isoformat()}</Expiration>
            </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>
        """.encode(),
    )


REFUSED = said(
    "403 Forbidden", b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
)
NO_DATE = of_a_service_account(2, until="tomorrow")
NO_CREDENTIALS = said("200 OK", b"<AssumeRoleWithWebIdentityResponse/>")


def number_of_key(link: str) -> int:
    found = re.search(r"Credential=key-(\d+)", link)
    assert found
    return int(found[1])


@pytest.mark.usefixtures("without_keys")
async def test_the_credentials_of_a_containers_role_are_found_and_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container of ECS or EKS gets its credentials in this way."""
    monkeypatch.setattr(signing, "LOOK_AGAIN_SECONDS", 0.01)
    async with issuer(of_a_container) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        found = await asyncio.to_thread(bucket_of, environment.read(FileSettings))
        async with found as bucket:
            link = bucket.link("a", "image/png")
            assert "X-Amz-Security-Token=token" in link
            before = number_of_key(link)
            await until(lambda: number_of_key(bucket.link("a", "image/png")) > before)


@pytest.mark.usefixtures("without_keys", "service_account")
@pytest.mark.parametrize(
    "answer", [REFUSED, NO_DATE, NO_CREDENTIALS], ids=["refused", "no-date", "no-credentials"]
)
async def test_credentials_are_renewed_after_one_refusal(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """A service account of EKS gets its credentials in this way."""

    def not_given_once(number: int) -> bytes:
        return answer if number == 2 else of_a_service_account(number)

    monkeypatch.setattr(signing, "LOOK_AGAIN_SECONDS", 0.01)
    async with issuer(not_given_once) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        found = await asyncio.to_thread(bucket_of, environment.read(FileSettings))
        async with found as bucket:
            await until(lambda: number_of_key(bucket.link("a", "image/png")) > 2)


@pytest.mark.usefixtures("without_keys", "service_account")
async def test_credentials_are_renewed_after_the_token_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signing, "LOOK_AGAIN_SECONDS", 0.01)
    async with issuer(of_a_service_account) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        found = await asyncio.to_thread(bucket_of, environment.read(FileSettings))
        async with found as bucket:
            (tmp_path / "token").rename(tmp_path / "gone")
            with capture_logs() as told:
                await until(lambda: bool(told))
            assert told[0]["event"] == "no new credentials for S3"
            assert "No such file" in told[0]["reason"]

            before = number_of_key(bucket.link("a", "image/png"))
            (tmp_path / "gone").rename(tmp_path / "token")
            await until(lambda: number_of_key(bucket.link("a", "image/png")) > before)


@pytest.mark.usefixtures("without_keys", "service_account")
async def test_an_unreadable_token_stops_the_process_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(EnvironmentIncomplete, match="No such file"):
        await asyncio.to_thread(bucket_of, environment.read(FileSettings))


@pytest.mark.usefixtures("without_keys", "service_account")
async def test_a_refused_role_stops_the_process_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with issuer(lambda _: REFUSED) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        with pytest.raises(EnvironmentIncomplete, match="AccessDenied"):
            await asyncio.to_thread(bucket_of, environment.read(FileSettings))


@pytest.mark.usefixtures("without_keys")
async def test_expired_credentials_stop_the_process_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with issuer(lambda number: of_a_container(number, timedelta(minutes=-1))) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        with pytest.raises(EnvironmentIncomplete, match="still expired"):
            await asyncio.to_thread(bucket_of, environment.read(FileSettings))


@pytest.mark.slow
@pytest.mark.usefixtures("without_keys", "service_account")
async def test_a_token_service_that_hangs_does_not_keep_a_process_from_starting_or_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(signing, "PATIENCE", signing.PATIENCE.merge(Config(read_timeout=0.1)))
        with pytest.raises(EnvironmentIncomplete, match="Read timeout"):
            async with asyncio.timeout(300):  # botocore's own limit is three times as long
                await asyncio.to_thread(bucket_of, environment.read(FileSettings))
