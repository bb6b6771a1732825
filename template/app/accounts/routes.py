from fastapi import APIRouter, Request

from app.accounts import queries, service
from app.accounts.schemas import (
    AccountOut,
    Credentials,
    PasswordChange,
    Registration,
    TokenOut,
)
from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser, LoginNeeded, Sessions

router = APIRouter(tags=["accounts"])


@router.post(
    "/accounts", status_code=201, summary="Register", responses=problems(400, 403, 409, 413)
)
async def register(
    registration: Registration, write: WriteSession, sessions: Sessions
) -> AccountOut:
    """Creates the account and logs it in."""
    account = await service.register(write, registration.email, registration.password)
    await sessions.start(account.id)
    return AccountOut.model_validate(account, from_attributes=True)


@router.post("/session", summary="Log in", responses=problems(400, 401, 403, 413, 429))
async def log_in(
    credentials: Credentials, request: Request, write: WriteSession, sessions: Sessions
) -> AccountOut:
    account = await service.authenticate(write, credentials, _address(request))
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
    credentials: Credentials, request: Request, write: WriteSession, sessions: Sessions
) -> TokenOut:
    """For clients that are not browsers: send it as `Authorization: Bearer …`."""
    account = await service.authenticate(write, credentials, _address(request))
    started = await sessions.start(account.id, cookie=False)
    return TokenOut(token=started.token, expires_at=started.expires_at)


@router.delete("/tokens/current", status_code=204, summary="Log out", responses=problems(401, 403))
async def delete_token(user: CurrentUser, sessions: Sessions) -> None:
    await sessions.end()


@router.get("/me", summary="Who is logged in", responses=problems(401))
async def me(read: ReadSession, user: CurrentUser) -> AccountOut:
    account = await queries.account_by_id(read, user.id)
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
    request: Request,
    write: WriteSession,
    user: CurrentUser,
    sessions: Sessions,
) -> None:
    """Logs out every other device."""
    await service.change_password(
        write, user.id, change.current_password, change.new_password, _address(request)
    )
    await sessions.end_others(user.id)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
