from fastapi import APIRouter

from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser, LoginNeeded, Sessions
from app.people import queries, service
from app.people.schemas import Credentials, Name, PersonOut, TokenOut

router = APIRouter(tags=["people"])


@router.post("/people", status_code=201, responses=problems(400, 403, 409, 413))
async def register(write: WriteSession, new: Credentials) -> PersonOut:
    person = await service.register(write, new.name, new.password)
    return PersonOut.model_validate(person, from_attributes=True)


@router.post("/tokens", status_code=201, responses=problems(400, 401, 403, 413))
async def start_token(write: WriteSession, sessions: Sessions, given: Credentials) -> TokenOut:
    person = await service.authenticate(write, given.name, given.password)
    started = await sessions.start(person.id, cookie=False)
    return TokenOut(token=started.token, expires_at=started.expires_at)


@router.delete("/tokens/current", status_code=204, responses=problems(401, 403))
async def end_token(user: CurrentUser, sessions: Sessions) -> None:
    await sessions.end()


@router.get("/me", responses=problems(401))
async def me(read: ReadSession, user: CurrentUser) -> PersonOut:
    person = await queries.person_by_id(read, user.id)
    if person is None:
        raise LoginNeeded
    return person


@router.put("/people/{name}/followers", status_code=204, responses=problems(401, 403, 404))
async def follow(write: WriteSession, user: CurrentUser, name: Name) -> None:
    await service.follow(write, user, name)
