# Rung's file: advancing to another stage may change it.
"""Checks before a release changes anything."""

from pathlib import Path

from botocore.exceptions import ClientError

from dev.deploy.aws import Aws, code
from dev.deploy.environment import Environment
from dev.deploy.programs import Stop, output


def commit(folder: Path) -> str:
    """The commit of a clean tree. It becomes the image's tag, which says what runs."""
    try:
        listed = output("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    except (Stop, FileNotFoundError) as error:
        raise Stop("This is not a git repository. Commit your work: it is the release.") from error
    # The first release writes the lock file, and may be killed before anybody commits it.
    changed = [line for line in listed if line[3:] != str(folder / ".terraform.lock.hcl")]
    if changed:
        raise Stop(
            f"The working tree has changes ({changed[0][3:]}"
            f"{f' and {len(changed) - 1} more' if changed[1:] else ''}). Commit or stash them."
        )
    return output("git", "rev-parse", "HEAD").strip()


def certificate(aws: Aws, environment: Environment, account: str) -> None:
    arn = environment.certificate
    if arn is None:
        return
    where = f"certificate_arn in {environment.folder}/main.tf"
    parts = arn.split(":")
    if len(parts) != 6 or parts[2] != "acm":
        raise Stop(f"Fill in {where}: {arn!r} is not a certificate of ACM.")
    if parts[3] != environment.region:
        raise Stop(
            f"The certificate is of {parts[3]}, and the service of {environment.region}. "
            f"A load balancer needs one of its region: request it there, and correct {where}."
        )
    if parts[4] != account:
        raise Stop(
            f"The certificate is of account {parts[4]}, you are in {account}. Correct {where}."
        )
    try:
        found = aws.client("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    except ClientError as error:
        if code(error) != "ResourceNotFoundException":
            raise
        raise Stop(f"There is no certificate {arn}. Correct {where}.") from error
    if found["Status"] != "ISSUED":
        raise Stop(
            f"The certificate is {found['Status']}, not ISSUED. Validate its name in ACM first."
        )
