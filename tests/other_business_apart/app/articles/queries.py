from uuid import UUID

from sqlalchemy import bindparam, func, select

from app.articles.models import Article, Comment
from app.articles.schemas import ArticleRow
from app.infra.freshness import max_stale
from app.infra.reads import Query, Reader

_COMMENTS = (
    select(func.count())
    .where(Comment.article_id == Article.id)
    .correlate(Article)
    .scalar_subquery()
    .label("comments")
)
_ARTICLES = select(Article.id, Article.title, Article.author_id, _COMMENTS)

QUERIES = {
    "newest": Query(_ARTICLES.order_by(Article.id.desc()).limit(20), ArticleRow),
    "written by": Query(
        _ARTICLES.where(Article.author_id.in_(bindparam("authors")))
        .order_by(Article.id.desc())
        .limit(20),
        ArticleRow,
    ),
}


@max_stale(minutes=1)
async def newest(read: Reader) -> list[ArticleRow]:
    return await read.all(QUERIES["newest"])


async def written_by(read: Reader, authors: list[UUID]) -> list[ArticleRow]:
    return await read.all(QUERIES["written by"], authors=authors)
