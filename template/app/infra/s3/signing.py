# Rung's file: advancing to another stage may change it.
"""Signed requests for S3."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import structlog
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from app.infra.environment import EnvironmentIncomplete

log = structlog.get_logger()

# A role's credentials last hours. botocore renews them 15 minutes before their end, so a link
# signed with them should not be valid for longer.
LOOK_AGAIN_SECONDS = 60

# A token service that hangs would otherwise keep a process from starting, and from ending, for
# minutes: three tries of 60 s.
PATIENCE = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})

# The errors, in order: variables and files, STS, credentials that are still expired, an unreadable
# token file, an invalid answer.
NOT_GIVEN = (BotoCoreError, ClientError, RuntimeError, OSError, ValueError)

NO_CREDENTIALS = """Missing or wrong in the environment:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: not set, and this container or machine has no role
See deploy/env.example."""


class S3Signer:
    """Signs requests to S3. Anyone with the URL can send the request, any number of times, until
    it expires.

    The signature fixes the method, the path, the query and the given headers. The credentials are
    those that AWS' own tools would find: from variables, or from a role.
    """

    def __init__(self, address: str, region: str) -> None:
        self._address = address
        self._region = region
        self._credentials, self._now = _found_credentials()

    def url(
        self,
        method: str,
        key: str,
        lifetime: timedelta,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        request = AWSRequest(method, f"{self._address}/{key}", dict(headers or {}), params=query)
        expires = int(lifetime.total_seconds())
        S3SigV4QueryAuth(self._now, "s3", self._region, expires).add_auth(request)
        return str(request.url)

    async def stay_current(self) -> None:
        """Renews a role's credentials in the background, so that no request waits for them."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            try:
                self._now = await asyncio.to_thread(self._credentials.get_frozen_credentials)
            except NOT_GIVEN as error:
                log.warning("no new credentials for S3", reason=str(error))
            except Exception:  # botocore's own bugs: without this the credentials would just expire
                log.exception("no new credentials for S3")


def _found_credentials() -> tuple[Credentials, ReadOnlyCredentials]:
    session = Session()
    session.set_default_client_config(PATIENCE)
    try:
        found: Credentials | None = session.get_credentials()
        if found is None:
            raise EnvironmentIncomplete(NO_CREDENTIALS)
        return found, found.get_frozen_credentials()
    except NOT_GIVEN as error:
        raise EnvironmentIncomplete(f"{NO_CREDENTIALS}\n{error}") from None
