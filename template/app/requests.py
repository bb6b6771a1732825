"""The base class of every request body."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Strict


class RequestBody(BaseModel):
    """Takes no `true` or `"1"` for a number.

    JSON has only text for a UUID, a time or an enum: mark such a field with Strict(False), as Id
    does.
    """

    model_config = ConfigDict(strict=True)


Id = Annotated[UUID, Strict(False)]
