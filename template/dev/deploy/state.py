# Rung's file: advancing to another stage may change it.
"""The bucket that holds Terraform's state, and the lock in it."""

import json
from typing import Any

from botocore.exceptions import ClientError

from dev.deploy.aws import Aws, code
from dev.deploy.environment import Environment
from dev.deploy.programs import Stop, output, run, say


def bucket_of(environment: Environment, account: str) -> str:
    return environment.bucket or f"{environment.id}-state-{account}"


def region_of(s3: Any, bucket: str, account: str) -> str | None:
    """None: there is no such bucket."""
    try:
        found = s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except ClientError as error:
        if code(error) in {"404", "NoSuchBucket"}:
            return None
        if code(error) == "403":
            raise Stop(
                f"The state's bucket {bucket} belongs to another account, or you may not read it. "
                'Name one of yours in main.tf: backend "s3" { bucket = "…" }'
            ) from error
        raise
    return str(found["BucketRegion"])


def refuse_lock(aws: Aws, environment: Environment, bucket: str, account: str) -> None:
    s3 = aws.client("s3")
    region = region_of(s3, bucket, account)
    if region is None:
        return
    if region != environment.region:
        raise Stop(
            f"The bucket {bucket} is in {region}, and the service in {environment.region}. "
            f"Name another bucket, or correct the region, in {environment.folder}/main.tf."
        )
    try:
        held = s3.get_object(Bucket=bucket, Key=f"{environment.key}.tflock")
    except ClientError as error:
        if code(error) in {"404", "NoSuchKey"}:
            return
        raise
    lock = json.loads(held["Body"].read())
    raise Stop(
        f"{lock.get('Who', 'Somebody')} locked the state at {lock.get('Created', '?')[:19]}. "
        "Wait until that run ends. If it was killed: "
        f"terraform -chdir={environment.folder} force-unlock {lock.get('ID', '')}"
    )


def need_bucket(aws: Aws, environment: Environment, bucket: str, account: str) -> None:
    if region_of(aws.client("s3"), bucket, account) is None:
        raise Stop(
            f"{environment.id} was never released: there is no bucket {bucket} with its state. "
            f"Run `make deploy {environment.make}` first."
        )


def make_bucket(aws: Aws, bucket: str, account: str) -> None:
    s3 = aws.client("s3")
    if region_of(s3, bucket, account) is None:
        say(f"Making the bucket {bucket} for Terraform's state")
        # us-east-1 is the one region that must not be named.
        place = {"CreateBucketConfiguration": {"LocationConstraint": aws.region}}
        s3.create_bucket(Bucket=bucket, **(place if aws.region != "us-east-1" else {}))
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled":
        return
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    encrypted = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=encrypted)
    # Last, because it marks the bucket as finished.
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def initialise(environment: Environment, bucket: str) -> None:
    place = (f"bucket={bucket}", f"region={environment.region}", f"key={environment.key}")
    options = [f"-backend-config={one}" for one in place]
    if not run("terraform", "init", "-input=false", *options, cwd=environment.folder):
        raise Stop("Terraform could not begin. It gives the reason above; nothing changed.")


def outputs(environment: Environment) -> dict[str, Any]:
    said = output("terraform", "output", "-json", "service", cwd=environment.folder)
    return dict(json.loads(said))
