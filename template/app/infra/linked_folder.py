# Rung's file: advancing to another stage may change it.
"""A folder whose files clients reach through signed links."""

from pathlib import Path

from fastapi.responses import FileResponse, Response

from app.infra.file_links import FileLinks
from app.infra.folder import Folder
from app.infra.stored_files import KEPT_BY_BROWSERS, FileMissing, UploadRequest


class LinkedFolder(Folder):
    """Private files, reached from outside only through links that expire."""

    def __init__(self, root: Path, links: FileLinks) -> None:
        super().__init__(root)
        self._links = links

    def link(self, key: str, content_type: str) -> str:
        return self._links.to_get(key, content_type)

    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest:
        return self._links.to_put(key, content_type, size)

    async def answer(self, key: str, content_type: str) -> Response:
        """Answers a client that followed a link. Raises FileMissing."""
        path = self.path(key)
        if not await path.is_file():
            raise FileMissing(key)
        return FileResponse(
            path, media_type=content_type, headers={"cache-control": KEPT_BY_BROWSERS}
        )
