from uuid import UUID

from sqlalchemy import bindparam, func, select

from app.articles.models import Article, Comment
from app.articles.schemas import ArticleOut
from app.infra.database import ReadSession
from app.infra.freshness import max_stale
from app.infra.reads import Query
from app.people.models import Follow, Person

_COMMENTS = (
    select(func.count())
    .where(Comment.article_id == Article.id)
    .correlate(Article)
    .scalar_subquery()
    .label("comments")
)
_ARTICLES = select(Article.id, Article.title, Person.name.label("author"), _COMMENTS).join(
    Person, Person.id == Article.author_id
)

# Queries may live anywhere: here in a dictionary.
QUERIES = {
    "newest": Query(_ARTICLES.order_by(Article.id.desc()).limit(20), ArticleOut),
    "feed": Query(
        _ARTICLES.join(Follow, Follow.followed_id == Article.author_id)
        .where(Follow.follower_id == bindparam("follower_id"))
        .order_by(Article.id.desc())
        .limit(20),
        ArticleOut,
    ),
}


@max_stale(minutes=1)
async def newest(read: ReadSession) -> list[ArticleOut]:
    return await read.all(QUERIES["newest"])


async def feed(read: ReadSession, follower_id: UUID) -> list[ArticleOut]:
    return await read.all(QUERIES["feed"], follower_id=follower_id)
