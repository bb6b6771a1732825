# Rung's file: advancing to another stage may change it.
"""Builds the image of a commit and pushes it to ECR, with Docker or buildah."""

import base64
import shutil
import subprocess
from typing import Any

from botocore.exceptions import ClientError

from dev.deploy.aws import code
from dev.deploy.programs import Stop, run, say

PLATFORMS = {"ARM64": "linux/arm64", "X86_64": "linux/amd64"}


def repository_of(account: str, region: str, service: str) -> str:
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{domain}/{service}"


def exists(ecr: Any, service: str, tag: str) -> bool:
    try:
        ecr.describe_images(repositoryName=service, imageIds=[{"imageTag": tag}])
    except ClientError as error:
        if code(error) in {"ImageNotFoundException", "RepositoryNotFoundException"}:
            return False
        raise
    return True


def builder() -> str:
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise Stop("Neither Docker nor buildah is there. Start Docker, or install buildah.")


def build_and_push(ecr: Any, program: str, image: str, architecture: str) -> None:
    # Attestations would make an image index with several digests, but AWS scans only one.
    more = ["--provenance=false"] if program == "docker" else ["--format=docker"]
    platform = PLATFORMS[architecture]
    if not run(program, "build", f"--platform={platform}", *more, f"--tag={image}", "."):
        raise Stop(
            "The image could not be built: the reason is above. The service is unchanged. After "
            f"'exec format error' install qemu-user-static, so that this machine builds {platform}."
        )
    say(f"Pushing {image}")
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    host = image.partition("/")[0]
    login = (program, "login", f"--username={user}", "--password-stdin", host)
    if not run(*login, typed=password) or not run(program, "push", image):
        raise Stop(
            "The image could not be pushed: the reason is above. The service is unchanged. "
            "Run the same command again."
        )
