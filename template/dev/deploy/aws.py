# Rung's file: advancing to another stage may change it.
"""Calls AWS with botocore, and says in one line what AWS refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
)
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.session import Session

from dev.deploy.programs import Stop

SIGN_IN = "Sign in to AWS (AWS_PROFILE, or the role of your CI), then run the same command again."
NETWORK = "Check your network (VPN, HTTPS_PROXY), then run the same command again."
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "SignatureDoesNotMatch"}
EXPIRED |= {"UnrecognizedClientException", "RequestExpired"}


class Aws:
    def __init__(self, region: str) -> None:
        self.region = region
        self.session = Session()
        known = {
            one
            for partition in self.session.get_available_partitions()
            for one in self.session.get_available_regions("ec2", partition)
        }
        if region not in known:
            raise Stop(f"AWS has no region {region}. Correct it in environments/*/main.tf.")

    def client(self, service: str, attempts: int = 5) -> Any:
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": attempts},
        )
        return self.session.create_client(service, region_name=self.region, config=config)

    def account(self) -> str:
        """The first question to AWS. Without a network it fails soon."""
        return str(self.client("sts", attempts=2).get_caller_identity()["Account"])


@contextmanager
def explained() -> Iterator[None]:
    try:
        yield
    except (NoCredentialsError, NoRegionError) as error:
        raise Stop(f"There are no credentials for AWS. {SIGN_IN}") from error
    except ClientError as error:
        said = error.response["Error"].get("Message", "")
        if code(error) in EXPIRED:
            why = sentence(f"AWS does not accept your credentials: {said}")
            raise Stop(f"{why} {SIGN_IN}") from error
        why = sentence(f"AWS refused {error.operation_name}: {code(error)}: {said}")
        raise Stop(f"{why} Correct this, then run the same command again.") from error
    except (NotConnectedError, HTTPClientError) as error:
        raise Stop(f"{sentence(f'AWS cannot be reached: {error}')} {NETWORK}") from error
    except BotoCoreError as error:
        raise Stop(f"{sentence(f'AWS could not be asked: {error}')} {SIGN_IN}") from error


def sentence(text: str) -> str:
    """On one line, with one full stop."""
    return f"{' '.join(text.split()).rstrip('.')}."


def code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])
