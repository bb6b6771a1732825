"""Deploys as docs/runbooks/deploy.md says, while people use the service.

Runs in a generated repo of stages 2 to 3: python -m two_processes.drive
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress

import httpx
from dev import ports, postgres, services

RUNBOOK = postgres.REPOSITORY / "docs/runbooks/deploy.md"
FOLDER = postgres.REPOSITORY / "two_processes"
DEPLOYS = 1
VISITORS = 8


class Process:
    def __init__(self, stack: ExitStack, environment: dict[str, str]) -> None:
        self._environment = environment
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.start()
        stack.callback(self.stop)

    def start(self) -> None:
        with (FOLDER / f"{self._environment['PORT']}.log").open("ab") as log:
            serve = [sys.executable, "-m", "app.infra.serve"]
            self._process = subprocess.Popen(serve, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def wait_until_ready(url: str) -> None:
    for _ in range(1200):
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


class Visitors:
    def __init__(self, url: str) -> None:
        self._url = url
        self.is_over = False
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.asked_again = 0

    async def visit(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            person = {
                "email": f"visitor{number}@example.com",
                "password": f"the secret of {number}",
            }
            while not self.is_over:
                await self._ask(client, "POST", "/accounts", person)
                client.cookies.clear()
                for _ in range(20):
                    await self._ask(client, "GET", "/products")
                    await self._ask(client, "POST", "/orders", {})

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, str] | None = None
    ) -> None:
        try:
            try:
                answer = await client.request(method, path, json=body)
            except httpx.RemoteProtocolError:
                if method == "GET":
                    raise
                # Closed without an answer, and nothing was done: as a client with a key does.
                self.asked_again += 1
                answer = await client.request(method, path, json=body)
        except httpx.TransportError as error:
            self.failed[f"{method} {path}: {error!r}"] += 1
            return
        self.answered[method] += 1
        if answer.status_code >= 500 or answer.status_code == 400:
            self.failed[f"{method} {path}: {answer.status_code}"] += 1
        await asyncio.sleep(0.01)


def balancer(stack: ExitStack, processes: list[Process], port: int) -> None:
    found = re.search(r"```haproxy\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    here = {"bind :8000": f"bind 127.0.0.1:{port}", ":8404": f":{ports.unused()}"}
    for written, process in zip(("8001", "8002"), processes, strict=True):
        here[f"127.0.0.1:{written}"] = process.url.removeprefix("http://")
    text = found[1]
    for said, meant in here.items():
        assert said in text
        text = text.replace(said, meant)
    file = FOLDER / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    path = f"{os.environ['PATH']}:/usr/sbin"
    running = subprocess.Popen(
        ["haproxy", "-db", "-f", str(file)], env={**os.environ, "PATH": path}
    )
    stack.callback(running.wait)
    stack.callback(running.terminate)


async def deployed(processes: list[Process], url: str) -> Visitors:
    visitors = Visitors(url)
    visits = [asyncio.create_task(visitors.visit(number)) for number in range(VISITORS)]
    for _ in range(DEPLOYS):
        for process in processes:
            await asyncio.to_thread(process.stop)
            process.start()
            await asyncio.to_thread(wait_until_ready, process.url)
            await asyncio.sleep(5)
    visitors.is_over = True
    await asyncio.gather(*visits)
    return visitors


def main() -> None:
    with ExitStack() as stack:
        given = {**os.environ, "DATABASE_URL": stack.enter_context(postgres.for_load())}
        environment = stack.enter_context(services.environment(given)) | {
            "LISTEN_ADDRESS": "127.0.0.1",
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
        }
        migrate = [sys.executable, "-m", "alembic", "upgrade", "head"]
        subprocess.run(migrate, env=environment, capture_output=True, check=True)
        port, *others = (ports.unused() for _ in range(3))
        processes = [Process(stack, environment | {"PORT": str(one)}) for one in others]
        for process in processes:
            wait_until_ready(process.url)
        balancer(stack, processes, port)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        visitors = asyncio.run(deployed(processes, url))
    report = {"answered": visitors.answered, "failed": visitors.failed}
    print(json.dumps(report | {"asked again": visitors.asked_again}))


if __name__ == "__main__":
    main()
