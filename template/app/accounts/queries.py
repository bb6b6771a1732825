from uuid import UUID

from sqlalchemy import bindparam, select

from app.accounts.models import Account
from app.accounts.schemas import AccountOut
from app.infra.database import ReadSession
from app.infra.reads import Query

ACCOUNT_BY_ID = Query(
    select(Account.id, Account.email, Account.is_staff).where(
        Account.id == bindparam("account_id")
    ),
    AccountOut,
)


async def account_by_id(read: ReadSession, account_id: UUID) -> AccountOut | None:
    return await read.first(ACCOUNT_BY_ID, account_id=account_id)
