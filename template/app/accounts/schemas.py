"""The bodies of requests and answers about accounts."""

import unicodedata
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, StringConstraints

from app.requests import RequestBody

# One @ with something around it. Only a mail to the address can tell whether it works.
Email = Annotated[
    str,
    StringConstraints(
        to_lower=True, strip_whitespace=True, max_length=254, pattern=r"^[!-?A-~]+@[!-?A-~]+$"
    ),
]


def _normalized(password: object) -> object:
    """Two keyboards may send é as one character or as two. JSON can also hold half a character,
    which cannot be hashed."""
    if isinstance(password, str):
        try:
            password.encode()
            return unicodedata.normalize("NFC", password)
        except UnicodeEncodeError:
            raise ValueError("the text is not valid Unicode") from None
    return password


# Length makes a password strong. Hashing more than 128 characters is only work.
NewPassword = Annotated[
    SecretStr, Field(min_length=12, max_length=128), BeforeValidator(_normalized)
]
Password = Annotated[SecretStr, Field(max_length=128), BeforeValidator(_normalized)]


class Registration(RequestBody):
    email: Email
    password: NewPassword


class Credentials(RequestBody):
    email: Email
    password: Password


class PasswordChange(RequestBody):
    current_password: Password
    new_password: NewPassword


class TokenOut(BaseModel):
    token: str
    expires_at: datetime


class SessionOut(BaseModel):
    id: str
    seen_at: datetime
    expires_at: datetime
    is_current: bool


class AccountOut(BaseModel):
    id: UUID
    email: str
    is_staff: bool
