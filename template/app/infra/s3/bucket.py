# Rung's file: advancing to another stage may change it.
"""Files in a bucket of S3."""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from ssl import SSLContext
from typing import Self
from xml.etree import ElementTree

import httpx
from fastapi.responses import RedirectResponse, Response

from app.infra.environment import EnvironmentIncomplete
from app.infra.failures import Unavailable
from app.infra.s3.signing import S3Signer
from app.infra.stored_files import (
    CHUNK_BYTES,
    KEPT_BY_BROWSERS,
    FileExists,
    FileFacts,
    FileMissing,
    UploadRequest,
    exactly,
    facts_of,
    valid,
)

# For the app's own requests, which are sent at once.
SOON = timedelta(minutes=5)

# S3 sometimes answers 500 or 503, and expects a retry.
PAUSE_SECONDS = 0.2

# S3 accepts only the first of two uploads under one key, and answers 412 to the other.
IF_NEW = {"if-none-match": "*"}


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    stored_at: datetime


class Bucket:
    """Private files in S3. Clients upload and download them there with requests that this process
    signs.

    Raises Unavailable when S3 fails, or does not answer within `seconds`. For the content of a
    file, `seconds` limits each pause and not the whole.
    """

    def __init__(self, signer: S3Signer, link_lifetime: timedelta, seconds: float) -> None:
        self._signer = signer
        self._link_lifetime = link_lifetime
        self._seconds = seconds
        self._client = _client(httpx.Timeout(seconds, connect=min(seconds, 2)))

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        self._staying_current = asyncio.create_task(self._signer.stay_current())
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._staying_current.cancel()
        await self._client.aclose()

    def link(self, key: str, content_type: str) -> str:
        fixed = {
            "response-cache-control": KEPT_BY_BROWSERS,
            "response-content-disposition": "inline",
            "response-content-type": content_type,
        }
        return self._signer.url("GET", valid(key), self._link_lifetime, query=fixed)

    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest:
        headers = {"content-type": content_type, **IF_NEW}
        # Clients send the length anyway, and browsers do not let a page set it.
        signed = {**headers, "content-length": str(size)}
        url = self._signer.url("PUT", valid(key), self._link_lifetime, headers=signed)
        return UploadRequest("PUT", url, headers)

    async def answer(self, key: str, content_type: str) -> Response:
        return RedirectResponse(self.link(key, content_type), 307)

    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None:
        if await self.size(key) is not None:  # not every S3 knows If-None-Match
            raise FileExists(key)
        headers = {"content-length": str(size), **IF_NEW}
        answer = await self._ask("PUT", valid(key), headers=headers, content=exactly(chunks, size))
        if answer.status_code == 412:
            raise FileExists(key)
        _expect(answer, 200)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        answer = await self._ask("GET", valid(key), streamed=True)
        try:
            if _error(answer) == "NoSuchKey":
                raise FileMissing(key)
            _expect(answer, 200)
            async for chunk in answer.aiter_raw(CHUNK_BYTES):
                yield chunk
        except httpx.TransportError as error:
            raise Unavailable(f"S3 ended its answer to GET {key} too early: {error!r}") from error
        finally:
            await answer.aclose()

    async def facts(self, key: str) -> FileFacts:
        return await facts_of(self.get(key))

    async def size(self, key: str) -> int | None:
        """None if there is no such file."""
        answer = await self._ask("HEAD", valid(key))
        _expect(answer, 200, 404)
        if answer.status_code == 404:
            return None
        if "content-length" not in answer.headers:
            raise Unavailable(f"S3 described {key} without its size")
        return int(answer.headers["content-length"])

    async def delete(self, key: str) -> None:
        answer = await self._ask("DELETE", valid(key))
        if _error(answer) != "NoSuchKey":  # Google's answer for a file that is gone already
            _expect(answer, 204)

    async def check(self) -> None:
        """Checks that the bucket is reachable. No file can have this key, so a server that finds it
        is not S3: it may be a web console. Not by HEAD: its answer is the same for a missing bucket
        and a missing file."""
        answer = await self._ask("GET", "No-such-key")
        if _error(answer) != "NoSuchKey":
            _expect(answer)

    async def keys(self) -> AsyncIterator[str]:
        async for page in self.pages():
            for found in page:
                yield found.key

    async def pages(self) -> AsyncIterator[list[StoredObject]]:
        """All stored files by key, up to 1,000 at a time."""
        query = {"list-type": "2"}
        while True:
            answer = await self._ask("GET", "", query=query)
            _expect(answer, 200)
            page = ElementTree.fromstring(answer.content)  # noqa: S314  # S3's own words
            yield [_stored(element) for element in page.iterfind("{*}Contents")]
            after = page.findtext("{*}NextContinuationToken")
            if after is None:
                return
            query["continuation-token"] = after

    async def _ask(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterable[bytes] | None = None,
        streamed: bool = False,
    ) -> httpx.Response:
        for pause in (PAUSE_SECONDS, 0) if content is None else (0,):
            url = self._signer.url(method, key, SOON, headers=headers, query=query)
            request = self._client.build_request(method, url, headers=headers, content=content)
            try:
                async with asyncio.timeout(self._seconds if content is None else None):
                    answer = await self._client.send(request, stream=True)
                    if not (streamed and answer.is_success):
                        await answer.aread()
                if answer.status_code < 500:
                    return answer
                reason = f"{answer.status_code} {_error(answer)}"
            except (httpx.RequestError, TimeoutError) as error:
                reason = repr(error)
            await asyncio.sleep(pause)
        raise Unavailable(f"S3 did not {method} {key}: {reason}")


def _client(timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A machine sets these variables for all its programs, and nothing has checked them yet."""
    proxies = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY"
    # A proxy before S3 would compress texts for a client that accepts it.
    plain = {"accept-encoding": "identity"}
    try:
        return httpx.AsyncClient(timeout=timeout, verify=_tls(), headers=plain)
    except OSError as error:
        why = f"SSL_CERT_FILE, SSL_CERT_DIR: {error}"
    except httpx.InvalidURL:  # whose text may show a part of a password
        why = f"{proxies}: httpx cannot read one of them. NO_PROXY takes no IPv6 network"
    except (ImportError, ValueError) as error:
        why = f"{proxies}: {error}"
    raise EnvironmentIncomplete(f"Missing or wrong in the environment:\n  {why}")


@cache
def _tls() -> SSLContext:
    """Once a process, because reading the certificate authorities takes 15 ms."""
    return httpx.create_ssl_context()


def _stored(element: ElementTree.Element) -> StoredObject:
    told = {part.tag.rpartition("}")[2]: part.text or "" for part in element}
    return StoredObject(told["Key"], datetime.fromisoformat(told["LastModified"]))


def _expect(answer: httpx.Response, *statuses: int) -> None:
    if answer.status_code not in statuses:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise Unavailable(f"S3 answered {answer.status_code} {_error(answer)} to {asked}")


def _error(answer: httpx.Response) -> str:
    """S3's error code, such as NoSuchKey or AccessDenied. Empty without an error."""
    found = None if answer.is_success else re.search(rb"<Code>(\w+)</Code>", answer.content)
    return found[1].decode() if found else ""
