from fastapi import FastAPI

from app import errors
from app.articles.routes import router as articles
from app.infra import wiring
from app.people.routes import router as people


def create_app() -> FastAPI:
    app = FastAPI(
        title="Gazette", lifespan=wiring.lifespan, responses=errors.problems(422, 500, 503)
    )
    errors.install(app)
    for router in (articles, people):
        app.include_router(router)
    wiring.install(app)
    return app
