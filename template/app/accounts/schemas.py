"""The bodies of requests and answers about accounts."""

import re
import unicodedata
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.requests import RequestBody

# One @ with something on both sides. Only a mail to the address can show whether it works.
EMAIL = r"^[!-?A-~]+@[!-?A-~]+$"


def _like_an_address(email: object) -> object:
    """Runs before the address becomes lower case, because the Kelvin sign would become a k."""
    if isinstance(email, str) and not re.match(EMAIL, email.strip()):
        raise PydanticCustomError("email", "Write an e-mail address, such as ada@example.com")
    return email


Email = Annotated[
    str,
    BeforeValidator(_like_an_address),
    StringConstraints(to_lower=True, strip_whitespace=True, max_length=254),
    WithJsonSchema({"type": "string", "maxLength": 254, "pattern": EMAIL}),
]


def _normalized(password: object) -> object:
    """Keyboards may send é as one character or as two. JSON can also hold a lone surrogate, which
    cannot be hashed."""
    if isinstance(password, str):
        try:
            password.encode()
            return unicodedata.normalize("NFC", password)
        except UnicodeEncodeError:
            raise ValueError("the text is not valid Unicode") from None
    return password


# Length makes a password strong. More than 128 characters cost time and add nothing.
LEAST, MOST = 12, 128


def _strong_enough(password: SecretStr) -> SecretStr:
    if len(password) < LEAST:
        raise PydanticCustomError("password", "Use at least {n} characters", {"n": LEAST})
    return password


def _short_enough(password: SecretStr) -> SecretStr:
    if len(password) > MOST:
        raise PydanticCustomError("password", "Use at most {n} characters", {"n": MOST})
    return password


def _documented(**limits: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": "password", "writeOnly": True, **limits})


Password = Annotated[
    SecretStr,
    BeforeValidator(_normalized),
    AfterValidator(_short_enough),
    _documented(maxLength=MOST),
]
NewPassword = Annotated[
    Password, AfterValidator(_strong_enough), _documented(minLength=LEAST, maxLength=MOST)
]


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
