from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class ArticleIn(BaseModel):
    title: Text


class CommentIn(BaseModel):
    body: Text


class ArticleRow(BaseModel):
    id: UUID
    title: str
    author_id: UUID
    comments: int


class ArticleOut(BaseModel):
    id: UUID
    title: str
    author: str
    comments: int


class Feed(BaseModel):
    articles: list[ArticleOut]
    is_mine: bool
