# Rung's file: advancing to another stage may change it.
"""Terraform's state: the bucket that holds it, and the lock in it."""

import json
from typing import Any

from botocore.exceptions import ClientError

from dev.deploy.aws import Aws, code
from dev.deploy.environment import Environment
from dev.deploy.programs import Stop, output, run, say


class State:
    """Of an environment. Its bucket belongs to the account of the credentials."""

    def __init__(self, environment: Environment) -> None:
        self.aws = Aws(environment.region)
        self.account = self.aws.account()
        self._environment = environment
        self._bucket = environment.bucket or f"{environment.id}-state-{self.account}"
        self._s3 = self.aws.client("s3")

    def refuse_lock(self) -> None:
        region, environment = self._region(), self._environment
        if region is None:
            return
        if region != environment.region:
            raise Stop(
                f"The bucket {self._bucket} is in {region}, and the service in"
                f" {environment.region}. Name another bucket, or correct the region, in"
                f" {environment.folder}/main.tf."
            )
        try:
            held = self._s3.get_object(Bucket=self._bucket, Key=f"{environment.key}.tflock")
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

    def need_bucket(self) -> None:
        if self._region() is None:
            raise Stop(
                f"{self._environment.id} was never released: there is no bucket {self._bucket} "
                f"with its state. Run `make deploy {self._environment.make}` first."
            )

    def make_bucket(self) -> None:
        s3, bucket = self._s3, self._bucket
        if self._region() is None:
            say(f"Making the bucket {bucket} for Terraform's state")
            # us-east-1 is the one region that must not be named.
            place = {"CreateBucketConfiguration": {"LocationConstraint": self.aws.region}}
            s3.create_bucket(Bucket=bucket, **(place if self.aws.region != "us-east-1" else {}))
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

    def initialise(self) -> None:
        environment = self._environment
        place = (f"bucket={self._bucket}", f"region={environment.region}", f"key={environment.key}")
        options = [f"-backend-config={one}" for one in place]
        if not run("terraform", "init", "-input=false", *options, cwd=environment.folder):
            raise Stop("Terraform could not begin. It gives the reason above; nothing changed.")

    def outputs(self) -> dict[str, Any]:
        folder = self._environment.folder
        return dict(json.loads(output("terraform", "output", "-json", "service", cwd=folder)))

    def _region(self) -> str | None:
        """The bucket's. None if there is no such bucket."""
        try:
            found = self._s3.head_bucket(Bucket=self._bucket, ExpectedBucketOwner=self.account)
        except ClientError as error:
            if code(error) in {"404", "NoSuchBucket"}:
                return None
            if code(error) == "403":
                raise Stop(
                    f"The state's bucket {self._bucket} belongs to another account, or you may not "
                    'read it. Name one of yours in main.tf: backend "s3" { bucket = "…" }'
                ) from error
            raise
        return str(found["BucketRegion"])
