"""The base class of every request body."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Strict


class RequestBody(BaseModel):
    """Refuses `true` and `"1"` where a number is expected.

    In JSON a UUID, a time or an enum is text. Mark such a field with Strict(False), as Id does.
    """

    model_config = ConfigDict(strict=True)


Id = Annotated[UUID, Strict(False)]
