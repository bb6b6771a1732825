# Rung's file: advancing to another stage may change it.
"""Calls AWS with botocore, and says in one line what AWS refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from botocore.session import Session

from dev.deploy.programs import Stop

SIGN_IN = "Sign in to AWS (AWS_PROFILE, or the role of your CI), then run the same command again."
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

    def client(self, service: str) -> Any:
        config = Config(
            connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 5}
        )
        return self.session.create_client(service, region_name=self.region, config=config)

    def account(self) -> str:
        return str(self.client("sts").get_caller_identity()["Account"])


@contextmanager
def explained() -> Iterator[None]:
    try:
        yield
    except (NoCredentialsError, NoRegionError) as error:
        raise Stop(f"There are no credentials for AWS. {SIGN_IN}") from error
    except ClientError as error:
        said = error.response["Error"]
        if code(error) in EXPIRED:
            raise Stop(
                f"AWS does not accept your credentials: {said['Message']} {SIGN_IN}"
            ) from error
        what = f"{error.operation_name}: {code(error)}: {said.get('Message', '')}"
        raise Stop(f"AWS refused {what}\nCorrect this, then run the same command again.") from error
    except BotoCoreError as error:
        raise Stop(f"AWS could not be asked: {error}\n{SIGN_IN}") from error


def code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])
