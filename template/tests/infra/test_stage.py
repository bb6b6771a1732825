# Rung's file: advancing to another stage may change it.
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# Each answers a bottleneck that this stage does not have yet.
NOT_YET = ("redis", "valkey", "boto", "aiobotocore", "obstore", "s3fs", "opentelemetry-sdk")
NOT_YET_IMPORTED = ("redis", "valkey", "boto3", "aiobotocore", "obstore", "opentelemetry.sdk")

LIST_MODULES = "import sys, app.main; print(*sys.modules)"


def test_what_later_stages_need_is_not_installed() -> None:
    installed = {distribution.name.lower() for distribution in distributions()}

    assert not [name for name in installed if name.startswith(NOT_YET)]


def test_what_later_stages_need_is_not_imported() -> None:
    listing = [sys.executable, "-c", LIST_MODULES]
    modules = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)

    imported = modules.stdout.split()
    assert "app.infra.database" in imported
    assert not [name for name in imported if name.startswith(NOT_YET_IMPORTED)]
