from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.accounts import service, throttle
from app.accounts.schemas import (
    AccountOut,
    Credentials,
    PasswordChange,
    Registration,
    SessionOut,
    TokenOut,
)
from app.errors import NotFound, problems
from app.infra.database import WriteSession
from app.infra.sessions import ActiveSession, CurrentUser, LoginNeeded, Sessions

router = APIRouter(tags=["accounts"])


class NoSuchSession(NotFound):
    """You have no such session"""


def client_address(request: Request) -> str:
    """The client's address, in the form that the throttle counts."""
    return throttle.network_of(request.client.host if request.client else "")


Address = Annotated[str, Depends(client_address)]


@router.post(
    "/accounts", status_code=201, summary="Register", responses=problems(400, 403, 409, 413, 429)
)
async def register(
    registration: Registration, write: WriteSession, sessions: Sessions, address: Address
) -> AccountOut:
    """Creates the account and logs it in."""
    await throttle.count_registration(write, address)
    async with throttle.turn_of(address):
        account = await service.register(write, registration.email, registration.password)
    await throttle.note_success(write, account, address)
    await sessions.start(account.id)
    return AccountOut.model_validate(account, from_attributes=True)


@router.post("/session", summary="Log in", responses=problems(400, 401, 403, 413, 429))
async def log_in(
    credentials: Credentials, write: WriteSession, sessions: Sessions, address: Address
) -> AccountOut:
    account = await service.authenticate(write, credentials, address)
    await sessions.start(account.id)
    return AccountOut.model_validate(account, from_attributes=True)


@router.delete("/session", status_code=204, summary="Log out", responses=problems(403))
async def log_out(sessions: Sessions) -> None:
    await sessions.end()


@router.post(
    "/tokens",
    status_code=201,
    summary="Log in without a cookie",
    responses=problems(400, 401, 403, 413, 429),
)
async def create_token(
    credentials: Credentials, write: WriteSession, sessions: Sessions, address: Address
) -> TokenOut:
    """For clients that are not browsers: send it as `Authorization: Bearer …`."""
    account = await service.authenticate(write, credentials, address)
    started = await sessions.start(account.id, cookie=False)
    return TokenOut(token=started.token, expires_at=started.expires_at)


@router.delete("/tokens/current", status_code=204, summary="Log out", responses=problems(401, 403))
async def delete_token(user: CurrentUser, sessions: Sessions) -> None:
    await sessions.end()


@router.get("/me", summary="Who is logged in", responses=problems(401))
async def me(account: service.MaybeAccount) -> AccountOut:
    if account is None:
        raise LoginNeeded
    return account


@router.put(
    "/me/password",
    status_code=204,
    summary="Change password",
    responses=problems(400, 401, 403, 413, 429),
)
async def change_password(
    change: PasswordChange,
    write: WriteSession,
    user: CurrentUser,
    sessions: Sessions,
    address: Address,
) -> None:
    """Logs out every other device."""
    await service.change_password(
        write, user.id, change.current_password, change.new_password, address
    )
    await sessions.end_others(user.id)


@router.get(
    "/me/sessions",
    summary="List my login sessions",
    response_model=list[SessionOut],
    responses=problems(401),
)
async def list_sessions(user: CurrentUser, sessions: Sessions) -> list[ActiveSession]:
    return await sessions.active(user.id)


@router.delete(
    "/me/sessions/{session_id}",
    status_code=204,
    summary="Log out one device",
    responses=problems(401, 403, 404),
)
async def end_session(
    session_id: str, write: WriteSession, user: CurrentUser, sessions: Sessions
) -> None:
    if not await sessions.end_one(user.id, session_id):
        raise NoSuchSession
    service.log_when_stored(write, "device_logged_out", user.id)


@router.delete(
    "/me/sessions", status_code=204, summary="Log out everywhere", responses=problems(401, 403)
)
async def log_out_everywhere(write: WriteSession, user: CurrentUser, sessions: Sessions) -> None:
    await sessions.end_all(user.id)
    await sessions.end()
    service.log_when_stored(write, "logged_out_everywhere", user.id)
