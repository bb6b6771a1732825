"""The base class of every request body."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Strict


class RequestBody(BaseModel):
    """Refuses `true` and `"1"` where a number is expected.

    In JSON a UUID, a time or an enum is text. Mark such a field with Strict(False), as Id does.
    A float is finite: JSON has no NaN, so each answer with a stored one would fail.
    Text with a lone surrogate is refused, because no answer can hold it. Pydantic checks this
    only where a length is limited.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, str_min_length=0)


Id = Annotated[UUID, Strict(False)]
