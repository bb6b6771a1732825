# Rung's file: advancing to another stage may change it.
"""Signed links, with which a client gets or puts one file."""

import time
from datetime import timedelta
from urllib.parse import urlencode

from app.infra.failures import Failure
from app.infra.signing import Signer
from app.infra.stored_files import UploadRequest, valid


class LinkInvalid(Failure):
    """The link was changed, or has expired."""

    status = 403
    title = "The link is not valid, or has expired"


class FileLinks:
    """Links to the app's own /files. Each link fixes the method and the key, and expires."""

    def __init__(self, signer: Signer, base_url: str, lifetime: timedelta) -> None:
        self._signer = signer
        self._base_url = base_url
        self._lifetime = lifetime

    def to_get(self, key: str, content_type: str) -> str:
        return self._signed_url("GET", key, content_type)

    def to_put(self, key: str, content_type: str, size: int) -> UploadRequest:
        url = self._signed_url("PUT", key, content_type, size)
        return UploadRequest("PUT", url, {"content-type": content_type})

    def check(self, signature: str, expires: int, method: str, key: str, *facts: object) -> None:
        """Raises LinkInvalid."""
        signed = self._signer.is_valid(signature, "file", method, key, expires, *facts)
        if not signed or expires < time.time():
            raise LinkInvalid

    def _signed_url(self, method: str, key: str, *facts: object) -> str:
        valid(key)  # no link for a key that no route accepts
        expires = int(time.time() + self._lifetime.total_seconds())
        signature = self._signer.sign("file", method, key, expires, *facts)
        names = ("expires", "signature", "content_type", "size")
        query = dict(zip(names, (expires, signature, *facts), strict=False))
        return f"{self._base_url}files/{key}?{urlencode(query)}"
