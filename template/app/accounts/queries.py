from sqlalchemy import bindparam, select

from app.accounts.models import Account
from app.accounts.schemas import AccountOut
from app.infra.reads import Query

ACCOUNT_OF_USER = Query(
    select(Account.id, Account.email, Account.is_staff).where(Account.id == bindparam("user_id")),
    AccountOut,
)
