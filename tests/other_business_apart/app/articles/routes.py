from uuid import UUID

from fastapi import APIRouter

from app.articles import queries
from app.articles.models import Article, Comment
from app.articles.schemas import ArticleIn, ArticleOut, ArticleRow, CommentIn, Feed
from app.articles.sessions import ArticlesRead, ArticlesWrite
from app.errors import NotFound, problems
from app.infra.database import ReadSession
from app.infra.sessions import CurrentUser, MaybeUser
from app.people import queries as people

router = APIRouter(tags=["articles"])


class NoSuchArticle(NotFound):
    """There is no such article"""


@router.get("/articles", responses=problems(401))
async def read_feed(read: ArticlesRead, common: ReadSession, user: MaybeUser) -> Feed:
    """The articles of those whom the reader follows, or the newest of all."""
    if user is None:
        return Feed(articles=await signed(common, await queries.newest(read)), is_mine=False)
    found = await queries.written_by(read, await people.followed_by(common, user.id))
    return Feed(articles=await signed(common, found), is_mine=True)


@router.get("/newest")
async def read_newest(read: ArticlesRead, common: ReadSession) -> Feed:
    return Feed(articles=await signed(common, await queries.newest(read)), is_mine=False)


async def signed(common: ReadSession, articles: list[ArticleRow]) -> list[ArticleOut]:
    # Two replicas: that of the people may be further behind.
    names = await people.names_of(common, [one.author_id for one in articles])
    return [
        ArticleOut(
            id=one.id,
            title=one.title,
            author=names.get(one.author_id, "somebody"),
            comments=one.comments,
        )
        for one in articles
    ]


@router.post("/articles", status_code=201, responses=problems(400, 401, 403, 413))
async def publish(write: ArticlesWrite, user: CurrentUser, new: ArticleIn) -> UUID:
    article = Article(author_id=user.id, title=new.title)
    write.add(article)
    await write.flush()
    queries.newest.invalidate(write)
    return article.id


@router.post(
    "/articles/{article_id}/comments",
    status_code=201,
    responses=problems(400, 401, 403, 404, 413),
)
async def comment(
    write: ArticlesWrite, user: CurrentUser, article_id: UUID, new: CommentIn
) -> None:
    if await write.get(Article, article_id) is None:
        raise NoSuchArticle
    write.add(Comment(article_id=article_id, author_id=user.id, body=new.body))
    queries.newest.invalidate(write)
