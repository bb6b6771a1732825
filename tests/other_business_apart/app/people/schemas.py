from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, SecretStr, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{2,30}$")]


class Credentials(BaseModel):
    name: Name
    password: SecretStr


class PersonOut(BaseModel):
    id: UUID
    name: str


class TokenOut(BaseModel):
    token: str
    expires_at: datetime


class FollowedOut(BaseModel):
    followed_id: UUID
