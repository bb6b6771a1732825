# Rung's file: advancing to another stage may change it.
"""Where files are at stage 4: in S3, or at one of the steps of their move there."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, HttpUrl, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra.environment import Duration, Seconds
from app.infra.s3.bucket import Bucket
from app.infra.s3.signing import S3Signer


class Step(StrEnum):
    FOLDER = "folder"
    # Uploads go to the folder, and a file is found in both.
    READ_BOTH = "read-both"
    # Uploads go to S3, and a file is found in both. `make files-to-s3` copies those that are older.
    UPLOAD_TO_S3 = "upload-to-s3"
    S3 = "s3"


class FileSettings(BaseSettings):
    """Durations are ISO 8601: PT15M."""

    model_config = SettingsConfigDict(env_prefix="FILES_")

    store: Step | None = None
    folder: Path | None = Field(default=None, validate_default=True)
    # No dots: Amazon's certificate does not cover a bucket's subdomain with dots.
    bucket: str | None = Field(
        default=None, validate_default=True, pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$"
    )
    s3_region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$")
    # The address of an S3 that is not Amazon's.
    s3_endpoint: HttpUrl | None = None
    s3_seconds: Seconds = 5
    # S3 takes no signature for longer than a week.
    link_lifetime: Annotated[Duration, Field(le=timedelta(days=7))] = timedelta(minutes=15)

    @field_validator("folder")
    @classmethod
    def _is_there(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("store") is Step.S3:
            return None
        if folder is None or not folder.is_dir():
            raise ValueError("must be a folder that exists")
        return folder

    @field_validator("bucket")
    @classmethod
    def _is_there_for_something(cls, bucket: str | None, info: ValidationInfo) -> str | None:
        store = info.data.get("store")
        if bucket and store is None:
            raise ValueError(
                "set FILES_STORE too: to s3, or to the step of docs/runbooks/s3/move-the-files.md"
                " that you have reached"
            )
        if not bucket and store not in {None, Step.FOLDER}:
            raise ValueError(f"must be set with FILES_STORE={store}")
        return bucket if store is not Step.FOLDER else None

    @field_validator("s3_endpoint")
    @classmethod
    def _is_the_address_alone(
        cls, endpoint: HttpUrl | None, info: ValidationInfo
    ) -> HttpUrl | None:
        if endpoint and (
            endpoint.username
            or endpoint.query
            or (endpoint.path or "").rstrip("/").endswith(f"/{info.data.get('bucket')}")
        ):
            raise ValueError("must be the address alone: no bucket, no user, no query")
        return endpoint

    @property
    def s3_address(self) -> str:
        if self.s3_endpoint:
            return f"{str(self.s3_endpoint).rstrip('/')}/{self.bucket}"
        end = ".cn" if self.s3_region.startswith("cn-") else ""
        return f"https://{self.bucket}.s3.{self.s3_region}.amazonaws.com{end}"


def bucket_of(settings: FileSettings) -> Bucket:
    signer = S3Signer(settings.s3_address, settings.s3_region)
    return Bucket(signer, settings.link_lifetime, settings.s3_seconds)
