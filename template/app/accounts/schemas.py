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

# Only a mail to the address can show whether it works. Mail software must read it as one address:
# it sends to "a" and "b@c" for a,b@c, and reads =?utf-8?q?eve=40evil.com=2c?=b@c as two addresses.
EMAIL = r"^[-!#-'*+./0-9=A-Z^-~]+@[-!#-'*+./0-9=A-Z^-~]+$"


def _like_an_address(email: object) -> object:
    """Runs before the address becomes lower case, because the Kelvin sign would become a k.

    Strips the space around it, because pydantic would leave control characters there."""
    if isinstance(email, str):
        email = email.strip()
        if not re.fullmatch(EMAIL, email):
            raise PydanticCustomError("email", "Write an e-mail address, such as ada@example.com")
    return email


Email = Annotated[
    str,
    BeforeValidator(_like_an_address),
    StringConstraints(to_lower=True, max_length=254),
    WithJsonSchema({"type": "string", "maxLength": 254, "pattern": EMAIL}),
]


def _normalized(password: object) -> object:
    """Keyboards may send é as one character or as two. JSON can also hold a lone surrogate, which
    cannot be hashed.

    A longer text cannot become short enough (at most 4 characters become one). To normalize 30,000
    accents would take 2 s, in which nobody is served."""
    if isinstance(password, str) and len(password) <= 4 * MOST:
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
