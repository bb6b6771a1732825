from fastapi import FastAPI

from app import errors
from app.accounts.routes import router as accounts
from app.catalog.routes import router as catalog
from app.infra import environment, wiring
from app.orders.routes import router as orders
from app.settings import Settings
from app.uploads.routes import router as uploads


def create_app() -> FastAPI:
    settings = environment.read(Settings)
    app = FastAPI(
        title=settings.title,
        openapi_url="/openapi.json" if settings.docs else None,
        responses=errors.problems(422, 500, 503),
        **wiring.OPTIONS,
    )
    errors.install(app)
    # FastAPI tries routers in this order: the busiest comes first.
    for router in (catalog, accounts, orders, uploads):
        app.include_router(router)
    wiring.install(app)
    return app


def __getattr__(name: str) -> FastAPI:
    """For `fastapi dev` and `uvicorn app.main:app`. An import needs no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
