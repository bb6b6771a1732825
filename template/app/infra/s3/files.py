# Rung's file: advancing to another stage may change it.
"""Installs the store of files that FILES_STORE names."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib import import_module

from fastapi import FastAPI

from app.infra import environment, files, health
from app.infra.environment import EnvironmentIncomplete
from app.infra.file_links import FileLinks
from app.infra.folder import Folder, LinkedFolder
from app.infra.s3.bucket import Bucket
from app.infra.s3.settings import FileSettings, Step, bucket_of
from app.infra.stored_files import FileStore


def install(app: FastAPI) -> None:
    settings = environment.read(FileSettings)
    bucket = app.state.bucket = bucket_of(settings) if settings.bucket else None
    if bucket is None:
        files.install(app)
        return
    health.add_readiness_check(app, "files", bucket.check)
    files.serve(app, _store(settings, bucket), settings.link_lifetime)


def lifespan(app: FastAPI) -> AbstractAsyncContextManager[object]:
    bucket: Bucket | None = app.state.bucket
    return bucket or nullcontext()


def _store(settings: FileSettings, bucket: Bucket) -> Callable[[FileLinks], FileStore]:
    folder = settings.folder
    if folder is None:
        return lambda links: bucket
    # Imported only while files move, because the folder `move` may be deleted afterwards.
    try:
        both = import_module("app.infra.s3.move.both")
    except ModuleNotFoundError as error:
        raise EnvironmentIncomplete(
            f"FILES_STORE={settings.store} needs app/infra/s3/move, which was deleted after the"
            " move: set FILES_STORE=s3."
        ) from error
    upload_to_s3 = settings.store is Step.UPLOAD_TO_S3
    Folder(folder).sweep()
    return lambda links: both.BothStores(
        LinkedFolder(folder, links), bucket, upload_to_s3=upload_to_s3
    )
