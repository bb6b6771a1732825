import anyio
import argon2
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.errors import AppError, Conflict, NotFound
from app.infra.database import WriteSession
from app.infra.sessions import User
from app.people.models import Follow, Person

_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


class NameTaken(Conflict):
    """Somebody has this name already"""


class NoSuchPerson(NotFound):
    """There is no such person"""


class WrongCredentials(AppError):
    """The name or the password is wrong"""

    status = 401


async def register(write: WriteSession, name: str, password: SecretStr) -> Person:
    """Raises NameTaken."""
    hashed = await anyio.to_thread.run_sync(_HASHER.hash, password.get_secret_value())
    new = insert(Person).values(name=name, password_hash=hashed).on_conflict_do_nothing()
    person: Person | None = await write.scalar(new.returning(Person))
    if person is None:
        raise NameTaken
    return person


async def authenticate(write: WriteSession, name: str, password: SecretStr) -> Person:
    """Raises WrongCredentials."""
    person = await write.scalar(select(Person).where(Person.name == name))
    if person is None:
        raise WrongCredentials
    try:
        _HASHER.verify(person.password_hash, password.get_secret_value())
    except argon2.exceptions.VerifyMismatchError:
        raise WrongCredentials from None
    return person


async def follow(write: WriteSession, user: User, name: str) -> None:
    """Raises NoSuchPerson. Following twice is no error."""
    followed = await write.scalar(select(Person.id).where(Person.name == name))
    if followed is None:
        raise NoSuchPerson
    new = insert(Follow).values(follower_id=user.id, followed_id=followed)
    await write.execute(new.on_conflict_do_nothing())
