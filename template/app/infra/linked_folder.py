# Rung's file: advancing to another stage may change it.
from pathlib import Path

from fastapi.responses import FileResponse, Response

from app.infra.file_links import FileLinks, UploadRequest
from app.infra.folder import FileMissing, Folder

# For the browser alone: what is stored under a key never changes.
KEPT_BY_BROWSERS = "private, max-age=3600, immutable"


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
        """To whom has followed a link. Raises FileMissing."""
        path = self.path(key)
        if not await path.is_file():
            raise FileMissing(key)
        return FileResponse(
            path, media_type=content_type, headers={"cache-control": KEPT_BY_BROWSERS}
        )
