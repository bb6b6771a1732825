from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.requests import RequestBody

MAX_BYTES = 10 * 1024 * 1024

ImageType = Literal["image/gif", "image/jpeg", "image/png", "image/webp"]


class UploadIn(RequestBody):
    content_type: ImageType
    size: Annotated[int, Field(ge=1, le=MAX_BYTES, description="In bytes, exactly.")]


class UploadOut(BaseModel):
    id: UUID
    content_type: str
    size: int
    sha256: str
    completed_at: datetime
    link: str = Field(description="Anybody with this link can get the image, for some minutes.")


class SendTo(BaseModel):
    method: str
    url: str
    headers: dict[str, str]


class UploadStarted(BaseModel):
    id: UUID
    send_to: SendTo = Field(description="The request that sends the bytes.")
