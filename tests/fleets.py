"""A fleet for tests: small bare repos, and a host with an API like GitHub's and GitLab's."""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

ANSWERS = ".copier-answers.yml"


def answers(template: Path | str, **given: Any) -> bytes:
    written = {
        "_commit": "v0.1.0",
        "_src_path": str(template),
        "project_name": "Shop",
        "project_slug": "shop",
        "team": "tea",
        "stage": 1,
        **given,
    }
    return yaml.safe_dump(written).encode()


def bare_repo(folder: Path, files: Mapping[str, bytes]) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    lines = [b"commit refs/heads/main\ncommitter A <a@example.com> 0 +0000\ndata 5\nStart\n"]
    for name, content in files.items():
        mode, content = (b"120000", content[1:]) if content[:1] == b">" else (b"100644", content)
        lines.append(
            b"M %s inline %s\ndata %d\n%s\n" % (mode, name.encode(), len(content), content)
        )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=b"".join(lines), check=True)
    return folder


@dataclass
class Host:
    """The state of the API, and the requests that it got."""

    url: str
    repos: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name, the text of each file at HEAD."""
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Given to the next requests, one each."""
    clone_url: Callable[[str], str] = "https://127.0.0.1:1/{}".format


@contextmanager
def host() -> Iterator[Host]:
    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            api.asked.append((self.command, self.path, dict(self.headers)))
            if api.refusals:
                code, headers = api.refusals.pop(0)
                self._send(code, b"{}", headers)
                return
            code, answer, headers = _answer(api, self.command, self.path, body)
            self._send(code, answer, headers)

        def _send(self, code: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    api = Host(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(
    api: Host, method: str, path: str, body: dict[str, Any]
) -> tuple[int, bytes, dict[str, str]]:
    if path == "/graphql":
        return 200, json.dumps(_graphql(api, body)).encode(), {}
    if found := re.fullmatch(r"/groups/[^/]+/projects\?.*&page=(\d+)", path):
        return _gitlab_page(api, int(found[1]))
    if found := re.fullmatch(r"/projects/(\d+)/repository/files/([^/]+)/raw\?ref=HEAD", path):
        text = api.repos[sorted(api.repos)[int(found[1])]].get(unquote(found[2]))
        return (404, b"{}", {}) if text is None else (200, text.encode(), {})
    if found := re.fullmatch(r"/repos/(.+)/pulls|/projects/(.+)/merge_requests", path):
        repo = found[1] or unquote(found[2])
        if any(one["repo"] == repo for one in api.opened):
            return 422 if found[1] else 409, b'{"message": "already exists"}', {}
        api.opened.append({"repo": repo, **body})
        url = f"https://host.example/{repo}/1"
        return 201, json.dumps({"html_url": url, "web_url": url}).encode(), {}
    return 404, b"{}", {}


def _graphql(api: Host, body: dict[str, Any]) -> dict[str, Any]:
    """Two repos a page, so that a small fleet has several."""
    if body["variables"]["login"] != "acme":
        return {"data": {"organization": None}, "errors": [{"message": "no such organization"}]}
    paths = dict(re.findall(r'(f\d+): object\(expression: "HEAD:([^"]+)"\)', body["query"]))
    first = int(body["variables"]["after"] or 0)
    names = sorted(api.repos)
    nodes = [
        {"nameWithOwner": name, "url": api.clone_url(name).removesuffix(".git")}
        | {key: _blob(api.repos[name].get(path)) for key, path in paths.items()}
        for name in names[first : first + 2]
    ]
    page = {"hasNextPage": first + 2 < len(names), "endCursor": str(first + 2)}
    return {"data": {"organization": {"repositories": {"pageInfo": page, "nodes": nodes}}}}


def _blob(text: str | None) -> dict[str, Any] | None:
    return None if text is None else {"text": text, "byteSize": len(text), "isTruncated": False}


def _gitlab_page(api: Host, page: int) -> tuple[int, bytes, dict[str, str]]:
    listed = [
        {"id": number, "path_with_namespace": name, "http_url_to_repo": api.clone_url(name)}
        for number, name in enumerate(sorted(api.repos))
    ]
    following = str(page + 1) if page * 2 < len(listed) else ""
    content = json.dumps(listed[page * 2 - 2 : page * 2]).encode()
    return 200, content, {"X-Next-Page": following}
