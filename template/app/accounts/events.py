"""Security events: log lines for whoever watches over accounts, without personal data."""

from typing import Literal
from uuid import UUID

import structlog

log = structlog.get_logger()

type Kind = Literal["login", "login_failed", "locked", "password_changed", "staff_changed"]


def record(kind: Kind, account_id: UUID | None) -> None:
    log.info("security", kind=kind, account_id=account_id)
