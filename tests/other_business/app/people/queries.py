from uuid import UUID

from sqlalchemy import bindparam, select

from app.infra.database import ReadSession
from app.infra.reads import Query
from app.people.models import Person
from app.people.schemas import PersonOut

PERSON_BY_ID = Query(
    select(Person.id, Person.name).where(Person.id == bindparam("person_id")), PersonOut
)


async def person_by_id(read: ReadSession, person_id: UUID) -> PersonOut | None:
    return await read.first(PERSON_BY_ID, person_id=person_id)
