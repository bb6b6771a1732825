from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, StringConstraints

# One @ with something around it: whether the address works only a mail to it can tell.
Email = Annotated[
    str,
    StringConstraints(
        to_lower=True, strip_whitespace=True, max_length=254, pattern=r"^[!-?A-~]+@[!-?A-~]+$"
    ),
]


def _encodable(password: object) -> object:
    """JSON can hold half a character, which no hash can be made of."""
    if isinstance(password, str):
        try:
            password.encode()
        except UnicodeEncodeError:
            raise ValueError("the text is not valid Unicode") from None
    return password


# Length is what makes a password strong; hashing more than 128 characters is only work.
NewPassword = Annotated[
    SecretStr, Field(min_length=12, max_length=128), BeforeValidator(_encodable)
]
Password = Annotated[SecretStr, Field(max_length=128), BeforeValidator(_encodable)]


class Registration(BaseModel):
    email: Email
    password: NewPassword


class Credentials(BaseModel):
    email: Email
    password: Password


class PasswordChange(BaseModel):
    current_password: Password
    new_password: NewPassword


class TokenOut(BaseModel):
    token: str
    expires_at: datetime


class AccountOut(BaseModel):
    id: UUID
    email: str
    is_staff: bool
