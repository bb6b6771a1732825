from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.module_databases.sessions import module_sessions
from app.infra.reads import Reader

articles = module_sessions("articles")
ArticlesRead = Annotated[Reader, Depends(articles.read)]
ArticlesWrite = Annotated[AsyncSession, Depends(articles.write, scope="function")]
