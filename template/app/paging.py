"""Pages of a list, newest first, each starting after an id: page 1,000 costs as much as page 1."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

# Ids are UUIDs of version 7, which grow with time. This one is greater than all of them.
NEWEST = UUID(int=2**128 - 1)

Before = Annotated[UUID, Query(description="Only entries older than the one with this id.")]
Limit = Annotated[int, Query(ge=1, le=100)]
