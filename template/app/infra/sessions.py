# Rung's file: advancing to another stage may change it.
"""Login sessions: the logged-in user, and the start and end of a session."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import Depends, FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from app.infra import environment
from app.infra.database import WriteSession, reader_for
from app.infra.failures import Failure
from app.infra.reads import Query
from app.infra.session_rows import Session, SessionRows, SessionSettings, SessionStore
from app.infra.session_tokens import CHALLENGE, COOKIE, hash_of, token_of


class LoginNeeded(Failure):
    """The request has no session, or its session has ended."""

    status = 401
    title = "Log in first"

    headers: ClassVar[Mapping[str, str]] = CHALLENGE


@dataclass(frozen=True, slots=True)
class User:
    id: UUID


class _UserOrNobody(SecurityBase):
    """OpenAPI shows it as the way to log in by cookie, and `_describe_logins` adds the rest.

    A second dependency for the token would take 6% of the time of `GET /me`.
    """

    scheme_name = "maybe"
    model = APIKeyCookie(name=COOKIE).model

    async def __call__(self, request: HTTPConnection) -> User | None:
        if "found_user" not in request.scope:  # once for a request that asks for both
            request.scope["found_user"] = await self._find(request)
        user: User | None = request.scope["found_user"]
        return user

    async def _find(self, request: HTTPConnection) -> User | None:
        token = token_of(request.scope).text
        if token is None:
            return None
        token_hash = hash_of(token)
        session = await self._session(request, token_hash)
        if session is None:
            return None
        settings: SessionSettings = request.app.state.session_settings
        if datetime.now(UTC) - session.seen_at > settings.seen_precision:
            await _store_of(request).note_visit(token_hash, session)
        return User(session.user_id)

    async def _session(self, request: HTTPConnection, token_hash: bytes) -> Session | None:
        return await _store_of(request).find(token_hash)


class _UserOnly(_UserOrNobody):
    scheme_name = "session"

    async def __call__(self, request: HTTPConnection) -> User:
        user = await super().__call__(request)
        if user is None:
            raise LoginNeeded
        return user


maybe_user = _UserOrNobody()
current_user = _UserOnly()

CurrentUser = Annotated[User, Depends(current_user)]

# For routes that show more to those who are logged in.
MaybeUser = Annotated[User | None, Depends(maybe_user)]


class _UserWithRow(_UserOnly):
    """Compares equal to current_user, so FastAPI calls only one of them. A test that overrides
    current_user overrides this too."""

    def __init__(self, query: Query[Any]) -> None:
        self._query = query

    async def _session(self, request: HTTPConnection, token_hash: bytes) -> Session | None:
        store = _store_of(request)
        if not isinstance(store, SessionRows):
            return await store.find(token_hash)
        found = await store.find_with(token_hash, self._query)
        if found is None:
            return None
        session, row = found
        request.scope["row_of_user"] = self._query, session.user_id, row
        return session

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UserOnly)

    def __hash__(self) -> int:
        return hash(current_user)


def of_user[RowT](query: Query[RowT]) -> Callable[..., Awaitable[RowT | None]]:
    """A dependency: the first row of a Query that takes the user_id of the logged-in user, or None.

    While sessions are rows, one statement finds the session and this row. For that, name this
    dependency before CurrentUser.

        MaybeAccount = Annotated[AccountOut | None, Depends(of_user(ACCOUNT))]
    """

    async def row(
        request: HTTPConnection,
        # `Annotated` would keep the first of these, because they are equal.
        user: User = Depends(_UserWithRow(query)),  # noqa: B008
    ) -> RowT | None:
        of_query, user_id, found = request.scope.get("row_of_user", (None, None, None))
        if of_query is query and user_id == user.id:
            own: RowT | None = found
            return own
        read = reader_for(request, request.app.state.database)
        return await read.first(query, user_id=user.id)

    return row


@dataclass(frozen=True, slots=True)
class StartedSession:
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """`id` identifies a session, but is not a token."""

    id: str
    seen_at: datetime
    expires_at: datetime
    is_current: bool


class LoginSessions:
    """Starts and ends sessions in the request's own transaction."""

    def __init__(self, request: Request, response: Response, write: WriteSession) -> None:
        self._settings: SessionSettings = request.app.state.session_settings
        self._store = _store_of(request)
        self._response = response
        self._write = write
        self._token, self._is_by_header, _ = token_of(request.scope)

    async def start(self, user_id: UUID, *, cookie: bool = True) -> StartedSession:
        """Always creates a new token, so a token that an attacker planted before is useless.

        With cookie=False, the client gets the token only if the route returns it. A browser keeps
        its cookie, so the session of that cookie continues.
        """
        if cookie or self._is_by_header:
            await self._end_presented()
        token = secrets.token_urlsafe(32)
        now = datetime.now(UTC)
        expires_at = now + self._settings.absolute
        session = Session(user_id=user_id, seen_at=now, expires_at=expires_at)
        await self._store.start(self._write, hash_of(token), session)
        if cookie:
            self._response.set_cookie(
                COOKIE,
                token,
                max_age=int(self._settings.absolute.total_seconds()),
                secure=True,
                httponly=True,
                samesite="lax",
            )
        return StartedSession(token, expires_at)

    async def end(self) -> None:
        """Ends the session that the request carries, by cookie or by token."""
        await self._end_presented()
        if not self._is_by_header:
            self._response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")

    async def active(self, user_id: UUID) -> list[ActiveSession]:
        """The user's sessions on all devices, last seen first. Read where sessions are written."""
        current = hash_of(self._token) if self._token is not None else None
        sessions = (await self._store.all_of(self._write, user_id)).items()
        return [
            ActiveSession(one.hex(), session.seen_at, session.expires_at, one == current)
            for one, session in sorted(sessions, key=lambda item: item[1].seen_at, reverse=True)
        ]

    async def end_one(self, user_id: UUID, session_id: str) -> bool:
        """Ends one of the user's sessions. False if the user has no such session."""
        for token_hash in await self._store.all_of(self._write, user_id):
            if token_hash.hex() == session_id:
                await self._store.end(self._write, token_hash)
                return True
        return False

    async def end_all(self, user_id: UUID) -> None:
        """Ends the user's sessions on every device."""
        await self._store.end_all(self._write, user_id)

    async def end_others(self, user_id: UUID) -> None:
        """Ends every other session of the user. The caller stays logged in: a browser gets a new
        cookie. A token stays valid, because its client would not receive a new one."""
        if self._is_by_header and self._token is not None:
            await self._store.end_all(self._write, user_id, besides=hash_of(self._token))
        else:
            await self._store.end_all(self._write, user_id)
            await self.start(user_id)

    async def _end_presented(self) -> None:
        if self._token is not None:
            await self._store.end(self._write, hash_of(self._token))


Sessions = Annotated[LoginSessions, Depends()]


def install(app: FastAPI) -> None:
    settings = environment.read(SessionSettings)
    app.state.session_settings = settings
    database = app.state.database
    app.state.session_store = SessionRows(database.reader, database.transaction, settings)
    _describe_logins(app)


def _describe_logins(app: FastAPI) -> None:
    """Wherever OpenAPI shows the cookie, it shows the token as well. A route for MaybeUser alone
    also has {}: it answers without a login."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = describe()
            schemes = described.get("components", {}).get("securitySchemes", {})
            if maybe := schemes.pop("maybe", None):
                schemes["session"] = maybe
            if "session" in schemes:
                schemes["token"] = jsonable_encoder(HTTPBearer().model, exclude_none=True)
            for path in described["paths"].values():
                for operation in path.values():
                    ways = operation.get("security", [])
                    if {"maybe": []} in ways:
                        ways.remove({"maybe": []})
                        if {"session": []} not in ways:
                            ways += [{"session": []}] if ways else [{"session": []}, {}]
                    if {"session": []} in ways:
                        ways.insert(ways.index({"session": []}) + 1, {"token": []})
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]


def _store_of(request: HTTPConnection) -> SessionStore:
    store: SessionStore = request.app.state.session_store
    return store
