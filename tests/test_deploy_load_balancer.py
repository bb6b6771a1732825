"""The load balancer's files of the generated repo, against the app that they are for."""

import csv
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest
import yaml
from conftest import REPO, Render, until
from serving import free_port

FILES = (
    "app/infra/copies/draining.py",
    "app/infra/copies/readiness.py",
    "deploy/haproxy.cfg",
    "deploy/load-balancer.toml",
    "deploy/load-balancer.yaml",
    "dev/copies/haproxy.py",
    "dev/copies/targets.mk",
    "dev/copies/stack.py",
)
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

SELF_SIGNED = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.test"]


@pytest.fixture
def shop(render: Render) -> Path:
    return render({"stage": 4})


@pytest.fixture
def aws(shop: Path) -> dict[str, Any]:
    return tomllib.loads((shop / "deploy/load-balancer.toml").read_text())


def number(pattern: str, file: Path) -> float:
    found = re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 1, f"{file.name}: {pattern}"
    return float(found[0])


def drain_seconds(shop: Path) -> float:
    return number(r"^    seconds: .* = (\d+)$", shop / "app/infra/copies/draining.py")


def graceful_seconds(shop: Path) -> float:
    return number(r"timeout_graceful_shutdown=(\d+)", shop / "app/infra/serve.py")


def flush_seconds(shop: Path) -> float:
    return number(r"^FLUSH_SECONDS = (\S+)$", shop / "app/infra/telemetry/telemetry.py")


def keep_alive_seconds(shop: Path) -> float:
    return number(r'"KEEP_ALIVE_SECONDS", default="(\d+)"', shop / "app/infra/serve.py")


def test_copies_arrive_with_stage_4(render: Render, shop: Path) -> None:
    before = render({"stage": 3})
    assert [file for file in FILES if (before / file).exists()] == []
    assert [file for file in FILES if not (shop / file).exists()] == []
    assert "draining" not in (before / "app/infra/serve.py").read_text()


def test_compose_publishes_one_port_for_any_number_of_copies(render: Render, shop: Path) -> None:
    def published(project: Path, file: str, service: str) -> list[str]:
        part = yaml.safe_load((project / "deploy" / file).read_text())
        return list(part["services"][service].get("ports", []))

    assert published(render({"stage": 3}), "app.yaml", "app") == ["127.0.0.1:8000:8000"]
    assert published(shop, "app.yaml", "app") == []
    assert published(shop, "load-balancer.yaml", "load-balancer") == ["127.0.0.1:8000:8000"]


def test_a_copy_drains_for_longer_than_its_load_balancer_needs_to_notice(shop: Path) -> None:
    haproxy = shop / "deploy/haproxy.cfg"
    interval = number(r"\binter (\d+)ms", haproxy) / 1000
    answer = number(r"^    timeout check (\d+)s", haproxy)
    assert interval + answer < drain_seconds(shop)
    assert number(r"# DRAIN_SECONDS=(\d+)", shop / "deploy/env.example") == drain_seconds(shop)


def test_a_copy_has_time_to_end_before_it_is_killed(shop: Path, aws: dict[str, Any]) -> None:
    longest = drain_seconds(shop) + graceful_seconds(shop) + flush_seconds(shop)
    assert longest < number(r"stop_grace_period: (\d+)s", shop / "deploy/app.yaml")
    assert longest < aws["ecs_container"]["stop_timeout"]
    assert graceful_seconds(shop) < aws["target_group"]["deregistration_delay"]


def test_the_load_balancer_has_time_to_end_before_it_is_killed(shop: Path) -> None:
    hard_stop = number(r"hard-stop-after (\d+)s", shop / "deploy/haproxy.cfg")
    assert hard_stop < number(r"stop_grace_period: (\d+)s", shop / "deploy/load-balancer.yaml")


def test_copies_keep_idle_connections_longer_than_load_balancers(
    shop: Path, aws: dict[str, Any]
) -> None:
    assert aws["load_balancer"]["idle_timeout"] < keep_alive_seconds(shop)


def test_haproxy_has_slots_for_all_copies_of_a_deploy(shop: Path) -> None:
    target = json.loads((shop / "deploy/autoscaling-target.json").read_text())
    capacity = tomllib.loads((shop / "deploy/capacity.toml").read_text())
    places = number(r"server-template app- 1-(\d+) ", shop / "deploy/haproxy.cfg")
    assert places == target["MaxCapacity"] * capacity["during_a_deploy"]


def test_both_load_balancers_use_the_same_health_check(shop: Path, aws: dict[str, Any]) -> None:
    assert aws["target_group"]["health_check"]["path"] == "/ready"
    assert "option httpchk GET /ready\n" in (shop / "deploy/haproxy.cfg").read_text()


def certificate(folder: Path) -> str:
    both, public = folder / "shop.pem", folder / "certificate"
    key = ["-keyout", str(both), "-out", str(public)]
    subprocess.run([*SELF_SIGNED, *key], check=True, capture_output=True)
    both.write_bytes(both.read_bytes() + public.read_bytes())
    return str(both)


@pytest.mark.parametrize("failure", ["timeout", "refused", "other"])
def test_haproxy_keeps_its_copies_while_dns_is_away(shop: Path, failure: str) -> None:
    assert number(rf"^    hold {failure} (\d+)h$", shop / "deploy/haproxy.cfg") >= 24


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
@pytest.mark.parametrize("tls", [False, True])
def test_haproxy_accepts_its_configuration(shop: Path, tmp_path: Path, tls: bool) -> None:
    environment = {"TLS_CERTIFICATES": certificate(tmp_path)} if tls else {}

    checked = subprocess.run(
        [str(HAPROXY), "-c", "-f", str(shop / "deploy/haproxy.cfg")],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
def test_a_redirect_to_https_has_a_request_id(shop: Path, tmp_path: Path) -> None:
    with haproxy_with_tls(shop, tmp_path) as (http, _):
        status, request_id = redirected(http)

    assert status == 308
    assert UUID(request_id)


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
@pytest.mark.parametrize(
    ("ciphers", "is_accepted"),
    [("ECDHE+AESGCM", True), ("ECDHE+CHACHA20", True), ("kRSA", False), ("ECDHE+SHA1", False)],
)
def test_https_takes_only_strong_ciphers(
    shop: Path, tmp_path: Path, ciphers: str, is_accepted: bool
) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with haproxy_with_tls(shop, tmp_path) as (http, https):
        redirected(http)  # it listens
        refusal = nullcontext() if is_accepted else pytest.raises(ssl.SSLError)
        with create_connection(("127.0.0.1", https)) as connection, refusal:
            client.wrap_socket(connection).close()


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 without a setting")
def test_silent_connections_of_one_client_leave_room_for_others(shop: Path, tmp_path: Path) -> None:
    deploy = tmp_path / "small/deploy"
    deploy.mkdir(parents=True)
    written = (shop / "deploy/haproxy.cfg").read_text()
    small = written.replace("gt 1000", "gt 20").replace("\ndefaults", "    maxconn 30\n\ndefaults")
    (deploy / "haproxy.cfg").write_text(small)

    with haproxy_with_tls(tmp_path / "small", tmp_path) as (http, _), ExitStack() as silent:
        redirected(http)  # it listens
        for _ in range(40):
            with suppress(ConnectionResetError):  # HAProxy has closed it already
                one = create_connection(("127.0.0.1", http), source_address=("127.0.0.2", 0))
                silent.callback(one.close)
        assert redirected(http)[0] == 308


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 without a setting")
def test_before_stage_4_many_connections_of_one_client_leave_room_for_others(
    tmp_path: Path,
) -> None:
    with (
        copy_with_one_place() as copy,
        haproxy_on_one_machine(copy, tmp_path) as port,
        ExitStack() as slow,
    ):
        for _ in range(201):
            one = create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
            slow.callback(one.close)
        # HAProxy takes a moment to accept them all.
        until(lambda: status_of(port, "GET", "/products", sender="127.0.0.2") == 429)
        assert status_of(port, "GET", "/products") == 200


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
def test_a_queue_of_logins_lets_other_requests_pass(shop: Path, tmp_path: Path) -> None:
    with (
        copy_with_one_place() as copy,
        haproxy_before(copy, shop, tmp_path) as (port, queued),
        ThreadPoolExecutor(6) as clients,
    ):
        clients.submit(status_of, port, "POST", "/session")
        until(lambda: copy.asked == ["POST /session"])
        for path in ("/session", "/tokens", "/%61ccounts"):  # The app decodes a path too.
            clients.submit(status_of, port, "POST", path)
        clients.submit(status_of, port, "PUT", "/me/password")
        until(lambda: queued() == 4)
        read = clients.submit(status_of, port, "GET", "/products")
        until(lambda: queued() == 5)
        copy.may_answer.set()

    assert read.result() == 200
    assert copy.asked[:2] == ["POST /session", "GET /products"]
    assert len(copy.asked) == 6


class Copy(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[str] = []
        self.may_answer = Event()


class Request(BaseHTTPRequestHandler):
    server: Copy

    def do_GET(self) -> None:
        if self.path != "/ready":
            self.server.asked.append(f"{self.command} {self.path}")
            self.server.may_answer.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def copy_with_one_place() -> Iterator[Copy]:
    with Copy() as copy:
        serving = Thread(target=copy.serve_forever)
        serving.start()
        try:
            yield copy
        finally:
            copy.may_answer.set()
            copy.shutdown()
            serving.join()


@contextmanager
def haproxy_before(copy: Copy, shop: Path, folder: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """Its port, and how many requests wait in its queue."""
    web, statistics = free_port(), free_port()
    changes = {
        r"bind :8000\n": f"bind 127.0.0.1:{web}\n",
        r"bind 127.0.0.1:8404\n": f"bind 127.0.0.1:{statistics}\n",
        r"server-template .*": f"server app-1 127.0.0.1:{copy.server_port} maxconn 1",
    }

    def queued() -> int:
        with closing(HTTPConnection("127.0.0.1", statistics, timeout=5)) as connection:
            connection.request("GET", "/;csv")
            rows = csv.DictReader(connection.getresponse().read().decode().splitlines())
        return sum(int(row["qcur"] or 0) for row in rows if row["svname"] == "BACKEND")

    with running_haproxy(shop, folder, changes):
        copy.may_answer.set()
        until(lambda: status_of(web, "GET", "/products") == 200)
        copy.may_answer.clear()
        copy.asked.clear()
        yield web, queued


@contextmanager
def haproxy_on_one_machine(copy: Copy, folder: Path) -> Iterator[int]:
    """Its port, with the configuration that the page shows for stages 1 to 3."""
    page = (REPO / "template/docs/runbooks/deploy.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```haproxy\n(.*?)```", page, re.DOTALL)
    (folder / "deploy").mkdir()
    (folder / "deploy/haproxy.cfg").write_text(shown)
    web = free_port()
    changes = {
        r"bind :8000\n": f"bind 127.0.0.1:{web}\n",
        r"bind 127.0.0.1:8404\n": f"bind 127.0.0.1:{free_port()}\n",
        r"127.0.0.1:8001": f"127.0.0.1:{copy.server_port}",
        r" *server 8002 .*\n": "",
    }
    with running_haproxy(folder, folder, changes):
        copy.may_answer.set()
        until(lambda: status_of(web, "GET", "/products") == 200)
        yield web


def status_of(port: int, method: str, path: str, *, sender: str = "") -> int:
    here = (sender, 0)
    with closing(HTTPConnection("127.0.0.1", port, timeout=20, source_address=here)) as connection:
        try:
            connection.request(method, path, "{}" if method == "POST" else None)
        except ConnectionRefusedError:  # it does not listen yet
            return 0
        return connection.getresponse().status


@contextmanager
def haproxy_with_tls(shop: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Its ports for HTTP and HTTPS."""
    http, https, statistics = free_port(), free_port(), free_port()
    changes = {
        rf"bind \S*:{bind}": f"bind 127.0.0.1:{port}{bind[-1]}"
        for bind, port in (("80\n", http), ("443 ", https), ("8404\n", statistics))
    }
    with running_haproxy(shop, folder, changes, TLS_CERTIFICATES=certificate(folder)):
        yield http, https


@contextmanager
def running_haproxy(
    shop: Path, folder: Path, changes: dict[str, str], **environment: str
) -> Iterator[None]:
    """With the configuration of the shop. Each change is a pattern and what takes its place."""
    written = (shop / "deploy/haproxy.cfg").read_text()
    for pattern, by in changes.items():
        written, found = re.subn(pattern, by, written)
        assert found == 1
    (folder / "haproxy.cfg").write_text(written)
    command = [str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def redirected(port: int) -> tuple[int, str]:
    """The status and the request id, once HAProxy listens."""
    end = time.monotonic() + 10
    while True:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", "/", headers={"Host": "shop.test"})
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
                continue
            with connection.getresponse() as answer:
                return answer.status, answer.headers["X-Request-ID"]
