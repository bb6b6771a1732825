"""Lists are read newest first, from an id on: page 1,000 costs as much as page 1."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

# Ids are UUIDs of version 7, which grow with time: nothing is newer than this one.
NEWEST = UUID(int=2**128 - 1)

Before = Annotated[UUID, Query(description="Only what is older than the one with this id.")]
Limit = Annotated[int, Query(ge=1, le=100)]
