# Rung's file: advancing to another stage may change it.
"""The page of `make traces`."""

import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from dev import postgres
from dev.telemetry import traces
from dev.telemetry.traces_server import KEPT, PROTOBUF, TraceServer
from tests.infra.conftest import Serve, bare_app
from tests.infra.telemetry.otlp import receiving


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with TraceServer(0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        yield url
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("services")
async def test_the_page_shows_the_last_traces_newest_first(page: str, serve: Serve) -> None:
    app = bare_app()

    @app.get("/pages/{number}")
    async def turn(number: int) -> None: ...

    async with serve(app) as client:
        for number in range(KEPT + 10):
            await client.get(f"/pages/{number}")
        await client.get("/nowhere")

    async with httpx.AsyncClient() as browser:
        traces = (await browser.get(f"{page}/traces.json")).json()
        assert len(traces) == KEPT
        assert [span["name"] for trace in traces[:2] for span in trace] == [
            "GET",
            "GET /pages/{number}",
        ]
        assert traces[0][0]["attributes"]["http.response.status_code"] == 404


@pytest.mark.usefixtures("services")
async def test_the_charts_have_a_line_for_each_process_of_the_app(page: str, serve: Serve) -> None:
    async with httpx.AsyncClient() as browser:
        for _ in range(2):
            app = bare_app()
            app.add_api_route("/quick", lambda: None)
            app.add_api_route("/broken", lambda: None, status_code=503)
            async with serve(app) as client:
                for path in ("/quick", "/quick", "/quick", "/broken"):
                    await client.get(path)
        processes = (await browser.get(f"{page}/metrics.json")).json()
    assert len(processes) == 2
    for [point] in processes:
        assert point["requests"] == pytest.approx(4 * point["failed"])
        assert point["failed"] > 0
        assert point["p95"] >= 5
        assert point["waiting"] == 0


def test_another_programs_metrics_are_not_drawn(page: str) -> None:
    answer = httpx.post(f"{page}/v1/metrics", content=b"", headers={"Content-Type": PROTOBUF})
    assert (answer.status_code, httpx.get(f"{page}/metrics.json").json()) == (200, [])


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "evil.example"}),
        ("POST", {"Host": "evil.example", "Content-Type": PROTOBUF}),
        ("POST", {"Content-Type": "text/plain"}),
    ],
)
def test_a_page_of_another_site_reads_and_adds_no_trace(
    page: str, method: str, headers: dict[str, str]
) -> None:
    for place in ("/traces.json", "/v1/traces"):
        answer = httpx.request(method, f"{page}{place}", headers=headers)
        assert answer.status_code == 403


@pytest.mark.parametrize("place", ["/", "/charts"])
def test_the_page_loads_nothing_from_another_host(page: str, place: str) -> None:
    text = httpx.get(f"{page}{place}").text

    assert f"<title>{'Charts' if place == '/charts' else 'Traces'}</title>" in text
    assert "://" not in text
    assert httpx.get(f"{page}/../pyproject.toml").status_code == 404


def kept_port(url: str, state: Path) -> None:
    (state / "traces").mkdir()
    (state / "traces" / "port").write_text(str(urlsplit(url).port))


def test_make_traces_opens_the_page_in_the_browser(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "state_folder", lambda: tmp_path)
    kept_port(page, tmp_path)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)

    traces.main()

    assert opened == [page]


def test_another_program_on_the_port_of_the_page_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "state_folder", lambda: tmp_path)
    with receiving() as stranger:
        kept_port(stranger.url, tmp_path)

        with pytest.raises(SystemExit, match="No server for traces is running"):
            traces.main()
