# Rung's file: advancing to another stage may change it.
"""Reads environments/NAME/main.tf before Terraform runs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.deploy.programs import Stop

# The load balancer's name has 32 characters. deploy/aws/variables.tf says the same.
LONGEST = 31
# The first one is the default in deploy/aws/variables.tf.
ARCHITECTURES = ("ARM64", "X86_64")


def folder_of(environment: str) -> Path:
    known = sorted(file.parent.name for file in Path("environments").glob("*/main.tf"))
    if environment not in known:
        raise Stop(
            f"Say which environment: ENV=production. There is: {', '.join(known) or 'none'}."
        )
    return Path("environments") / environment


@dataclass(frozen=True)
class Environment:
    folder: Path
    id: str
    region: str
    certificate: str | None  # None: Terraform computes it
    bucket: str | None  # of the state. None: `make deploy` chooses the name
    key: str
    architecture: str

    @property
    def make(self) -> str:
        return f"ENV={self.folder.name}"


def read(folder: Path) -> Environment:
    main = blocks_of(folder)
    region = literal(folder, provider(main), "region")
    module = block_of(main, "module", "service")
    backend = main.get("terraform", [{}])[0].get("backend", [{}])[0].get("s3", {})
    name, environment = (literal(folder, module, one) for one in ("name", "environment"))
    service = f"{name}-{environment}"
    if not re.fullmatch(r"[a-z][a-z0-9-]*", service) or len(service) > LONGEST:
        raise Stop(
            f"{service} has {len(service)} characters, and may have {LONGEST} of a-z, 0-9 and -. "
            f"Shorten name or environment in {folder}/main.tf."
        )
    certificate = plain(module.get("certificate_arn"))
    key = plain(backend.get("key")) or f"{environment}.tfstate"
    bucket = plain(backend.get("bucket"))
    architecture = ARCHITECTURES[0]
    if "architecture" in module:
        architecture = literal(folder, module, "architecture")
    if architecture not in ARCHITECTURES:
        raise Stop(f"architecture is {' or '.join(ARCHITECTURES)}. Correct it in {folder}/main.tf.")
    return Environment(folder, service, region, certificate, bucket, key, architecture)


def blocks_of(folder: Path, file: str = "main.tf") -> dict[str, Any]:
    import hcl2  # Installed for `make deploy`; the guard's tests do without.

    try:
        found = hcl2.loads((folder / file).read_text(encoding="utf-8"))
    except Exception as error:  # The parser's errors have no common class.
        line = getattr(error, "line", "?")
        raise Stop(f"Cannot read {folder}/{file}: line {line} is not valid Terraform.") from error
    return dict(without_quotes(found))


def without_quotes(value: Any) -> Any:
    """The parser leaves the quotes around texts."""
    if isinstance(value, dict):
        return {unquoted(name): without_quotes(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_quotes(one) for one in value]
    return value


def unquoted(text: str) -> str:
    return text[1:-1] if text.startswith('"') and text.endswith('"') and len(text) > 1 else text


def plain(value: Any) -> str | None:
    """The text of a literal value. None for an expression."""
    if isinstance(value, str) and value.startswith('"') and "${" not in value:
        return unquoted(value)
    return None


def literal(folder: Path, block: dict[str, Any], name: str) -> str:
    if value := plain(block.get(name)):
        return value
    raise Stop(f"Write {name} as plain text in {folder}/main.tf: it is read before Terraform runs.")


def block_of(main: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for one in main.get(kind, []):
        if name in one:
            return dict(one[name])
    return {}


def provider(main: dict[str, Any]) -> dict[str, Any]:
    for one in main.get("provider", []):
        if "aws" in one and "alias" not in one["aws"]:
            return dict(one["aws"])
    return {}
