from uuid import UUID

from sqlalchemy import bindparam, select

from app.infra.database import ReadSession
from app.infra.reads import Query
from app.people.models import Follow, Person
from app.people.schemas import FollowedOut, PersonOut

PERSON_BY_ID = Query(
    select(Person.id, Person.name).where(Person.id == bindparam("person_id")), PersonOut
)
PEOPLE_BY_ID = Query(
    select(Person.id, Person.name).where(Person.id.in_(bindparam("ids"))), PersonOut
)
FOLLOWED = Query(
    select(Follow.followed_id).where(Follow.follower_id == bindparam("follower_id")), FollowedOut
)


async def person_by_id(read: ReadSession, person_id: UUID) -> PersonOut | None:
    return await read.first(PERSON_BY_ID, person_id=person_id)


async def names_of(read: ReadSession, ids: list[UUID]) -> dict[UUID, str]:
    return {person.id: person.name for person in await read.all(PEOPLE_BY_ID, ids=ids)}


async def followed_by(read: ReadSession, follower_id: UUID) -> list[UUID]:
    return [one.followed_id for one in await read.all(FOLLOWED, follower_id=follower_id)]
