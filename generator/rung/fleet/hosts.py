"""Talks to the APIs of GitHub and GitLab: lists an organisation, opens a pull request."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.parse import quote, urlsplit

from rung.errors import RungError

_MOST_BYTES = 64 << 20
_SECONDS = 60
_LONGEST_WAIT = 120
_TRIES = 4
_AT_ONCE = 8

# 100 repos a query is GitHub's maximum.
_QUERY = """
query($login: String!, $after: String) {
  organization(login: $login) {
    repositories(first: 100, after: $after, isArchived: false, orderBy: {field: NAME, direction: ASC}) {
      pageInfo { hasNextPage endCursor }
      nodes { nameWithOwner url FILES }
    }
  }
}
"""  # noqa: E501 - one line of GraphQL


@dataclass(frozen=True)
class Hosted:
    name: str
    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


class HostError(RungError):
    """The host's API refused, or its answer is unusable."""

    def __init__(self, message: str, code: int = 0, body: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.body = body


def repos_of_organisation(host: str, name: str, wanted: tuple[str, ...]) -> Iterator[Hosted]:
    return (_on_github if host == "github" else _on_gitlab)(name, wanted)


def _on_github(login: str, wanted: tuple[str, ...]) -> Iterator[Hosted]:
    api = GitHub.from_environment()
    files = " ".join(
        f'f{n}: object(expression: "HEAD:{path}") {{ ... on Blob {{ byteSize isTruncated text }} }}'
        for n, path in enumerate(wanted)
    )
    after: str | None = None
    while True:
        answer = api.graphql(_QUERY.replace("FILES", files), {"login": login, "after": after})
        organisation = _at(answer, "data", "organization")
        if organisation is None:
            reason = _at(answer, "errors", 0, "message") or "it names no such organisation"
            raise HostError(f"GitHub does not list {login}: {str(reason)[:200]}")
        repositories = _at(organisation, "repositories") or {}
        for node in _at(repositories, "nodes") or []:
            if isinstance(node, Mapping):
                yield _github_repo(node, wanted)
        page = _at(repositories, "pageInfo") or {}
        if not page.get("hasNextPage") or page.get("endCursor") in {None, after}:
            return
        after = page["endCursor"]


def _github_repo(node: Mapping[str, Any], wanted: tuple[str, ...]) -> Hosted:
    files: dict[str, bytes] = {}
    problem = ""
    for number, path in enumerate(wanted):
        blob = node.get(f"f{number}") or {}
        if blob.get("isTruncated"):
            problem = f"{path} is too large for the API"
        elif isinstance(blob.get("text"), str):
            files[path] = blob["text"].encode("utf-8", "surrogatepass")
    return Hosted(str(node.get("nameWithOwner")), f"{node.get('url')}.git", files, problem)


def _on_gitlab(group: str, wanted: tuple[str, ...]) -> Iterator[Hosted]:
    api = GitLab.from_environment()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        page = 1
        while page:
            projects, headers = api.call(
                "GET",
                f"groups/{quote(group, safe='')}/projects?include_subgroups=true&archived=false"
                f"&simple=true&order_by=id&sort=asc&per_page=100&page={page}",
            )
            if not isinstance(projects, list):
                raise HostError(
                    f"{_host(api.base)} did not send a list of projects. Check GITLAB_API_URL."
                )
            listed = [one for one in projects if isinstance(one, Mapping)]
            yield from pool.map(lambda one: _gitlab_repo(api, one, wanted), listed)
            following = headers.get("X-Next-Page", "")
            page = int(following) if following.isdigit() and int(following) > page else 0


def _gitlab_repo(api: "GitLab", project: Mapping[str, Any], wanted: tuple[str, ...]) -> Hosted:
    name, url = str(project.get("path_with_namespace")), str(project.get("http_url_to_repo"))
    files: dict[str, bytes] = {}
    for path in wanted:
        where = f"projects/{project.get('id')}/repository/files/{quote(path, safe='')}/raw?ref=HEAD"
        try:
            files[path] = api.raw(where)
        except HostError as error:
            if error.code != 404:
                return Hosted(name, url, problem=str(error))
            if path == wanted[0]:
                break
    return Hosted(name, url, files)


@dataclass(frozen=True)
class _Api:
    base: str
    headers: Mapping[str, str] = field(repr=False)

    def call(self, method: str, path: str, body: object = None) -> tuple[Any, Message]:
        content, headers = self._send(method, f"{self.base}/{path}", body)
        try:
            return json.loads(content), headers
        except (ValueError, RecursionError) as error:
            raise HostError(f"{_host(self.base)} did not send JSON for {path[:80]}.") from error

    def raw(self, path: str) -> bytes:
        return self._send("GET", f"{self.base}/{path}", None)[0]

    def _send(self, method: str, url: str, body: object) -> tuple[bytes, Message]:
        request = urllib.request.Request(  # noqa: S310 - from_environment allows http(s) only
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"User-Agent": "rung", "Content-Type": "application/json", **self.headers},
        )
        for attempt in range(1, _TRIES + 1):
            try:
                with _OPENER.open(request, timeout=_SECONDS) as answer:
                    content = answer.read(_MOST_BYTES + 1)
                    if len(content) > _MOST_BYTES:
                        raise HostError(f"{_host(url)} answered more than {_MOST_BYTES >> 20} MiB.")
                    if answer.length:  # Python returns a part as if it were all.
                        raise IncompleteRead(content, answer.length)
                    return content, answer.headers
            except urllib.error.HTTPError as error:
                wait = _wait(error)
                words = error.read(2000).decode("utf-8", "replace")
                if wait is None or attempt == _TRIES:
                    raise HostError(
                        f"{_host(url)} answered {error.code} to {method} "
                        f"{urlsplit(url).path[:80]}.{_hint(error.code)}",
                        error.code,
                        words,
                    ) from error
                if wait > _LONGEST_WAIT:
                    raise HostError(
                        f"{_host(url)} is over its rate limit. Run this again in {wait:.0f} s."
                    ) from error
            except (HTTPException, OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                if attempt == _TRIES:
                    raise HostError(f"{_host(url)} cannot be reached: {reason}.") from error
                wait = 0.2 * attempt
            time.sleep(wait)
        raise AssertionError  # Each try returns, raises or sleeps.


class GitHub(_Api):
    @classmethod
    def from_environment(cls) -> "GitHub":
        token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN")
        if not token:
            raise HostError("GitHub's API needs a token. Set GITHUB_TOKEN (read access is enough).")
        base = _base("GITHUB_API_URL", "https://api.github.com")
        return cls(base, {"Authorization": _header("GITHUB_TOKEN", f"Bearer {token}")})

    def graphql(self, query: str, variables: Mapping[str, object]) -> Any:
        base = self.base.removesuffix("/v3")  # GitHub Enterprise: /api/v3 beside /api/graphql
        enterprise = GitHub(base, self.headers)
        return enterprise.call("POST", "graphql", {"query": query, "variables": variables})[0]

    def open(self, repo: str, branch: str, into: str, title: str, text: str) -> str:
        body = {"head": branch, "base": into, "title": title, "body": text}
        return str(_at(self.call("POST", f"repos/{repo}/pulls", body)[0], "html_url"))


class GitLab(_Api):
    @classmethod
    def from_environment(cls) -> "GitLab":
        token = os.environ.get("GITLAB_TOKEN")
        base = _base("GITLAB_API_URL", "https://gitlab.com/api/v4")
        return cls(base, {"PRIVATE-TOKEN": _header("GITLAB_TOKEN", token)} if token else {})

    def open(self, repo: str, branch: str, into: str, title: str, text: str) -> str:
        body = {
            "source_branch": branch, "target_branch": into, "title": title, "description": text,
            "remove_source_branch": True,
        }  # fmt: skip
        where = f"projects/{quote(repo, safe='')}/merge_requests"
        return str(_at(self.call("POST", where, body)[0], "web_url"))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another host."""

    def redirect_request(self, *arguments: object, **named: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _base(variable: str, default: str) -> str:
    base = (os.environ.get(variable) or default).rstrip("/")
    try:
        parts = urlsplit(base)
    except ValueError as error:
        raise HostError(f"{variable} is not a URL: {error}.") from error
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise HostError(f"{variable} must begin with https://: Rung sends a token there.")
    return base


def _header(variable: str, value: str) -> str:
    """A token with a line break would end in a traceback that shows it."""
    if not (value.isascii() and value.isprintable()):
        raise HostError(f"{variable} holds characters that no token has. Set it again.")
    return value


def _wait(error: urllib.error.HTTPError) -> float | None:
    """Seconds to wait before a retry; None when a retry is useless."""
    after = error.headers.get("Retry-After", "")
    if after.isdigit() and error.code in {403, 429, 503}:
        return float(after)
    reset = error.headers.get("X-RateLimit-Reset", error.headers.get("RateLimit-Reset", ""))
    if error.code == 429 or error.headers.get("X-RateLimit-Remaining") == "0":
        return max(1.0, float(reset) - time.time()) if reset.isdigit() else 30.0
    return 1.0 if error.code in {500, 502, 503, 504} else None


def _hint(code: int) -> str:
    if code in {401, 403}:
        return " Check the token and its permissions."
    return " Check the name, and that the token can read it." if code == 404 else ""


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)


def _at(value: Any, *keys: str | int) -> Any:
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
