# Rung's file: advancing to another stage may change it.
"""`make files-to-s3`, killed again and again while the service runs."""

import asyncio
import io
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from hashlib import sha256
from itertools import count

import httpx
import pytest

from app.infra.s3.bucket import Bucket
from app.infra.s3.move import __main__ as mover
from app.infra.s3.settings import Step
from tests.infra.conftest import Serve
from tests.infra.s3.move.test_move import at_the_step, move
from tests.infra.s3.move.test_steps import copy_at
from tests.infra.s3.pictures import ROWS, Pictures

__all__ = ["at_the_step"]

KILLS = 20
FILES = 200

# Its children have all modules at once, so a kill hits their work and not their imports.
processes = multiprocessing.get_context("forkserver")


class Visitors:
    """Clients that upload, read and delete pictures during the copy."""

    def __init__(self, client: httpx.AsyncClient, pictures: Pictures) -> None:
        self._client = client
        self._pictures = pictures
        self._are_gone = False
        self.kept: dict[str, str] = {}
        self.deleted: list[str] = []
        self.looked = 0

    async def upload(self) -> None:
        for number in count():
            if self._are_gone:
                return
            name, content = f"new-{number}", os.urandom(20_000)
            request = (await self._client.get(f"/upload/{name}?size={len(content)}")).json()
            assert (await self._client.request(**request, content=content)).status_code == 200
            completed = await self._client.post(f"/completion/{name}")
            await self._pictures.noted(f"pictures/{name}", content)
            self.kept[name] = completed.json()

    async def look(self) -> None:
        while not self._are_gone:
            name, digest = random.choice(list(self.kept.items()))  # noqa: S311
            link = (await self._client.get(f"/link/{name}")).json()
            try:
                found = await self._client.get(link, follow_redirects=True)
            except (FileNotFoundError, RuntimeError):  # deleted between the lookup and the opening
                assert name in self.deleted
                continue
            assert sha256(found.content).hexdigest() == digest or name in self.deleted
            self.looked += 1

    async def delete(self) -> None:
        while not self._are_gone:
            await asyncio.sleep(0.01)
            if len(self.kept) == 1:  # deletions were faster than uploads
                continue
            name = random.choice(list(self.kept))  # noqa: S311
            del self.kept[name]
            self.deleted.append(name)
            await self._pictures.deleted(f"pictures/{name}")
            assert (await self._client.delete(f"/picture/{name}")).status_code == 200

    def go(self) -> None:
        self._are_gone = True


@pytest.mark.slow
@pytest.mark.usefixtures("at_the_step")
async def test_killing_the_copy_twenty_times_loses_and_revives_no_file(
    pictures: Pictures, bucket: Bucket, serve: Serve
) -> None:
    async with copy_at(Step.UPLOAD_TO_S3, serve) as client, asyncio.TaskGroup() as visit:
        visitors = Visitors(client, pictures)
        for number in range(FILES):
            content = os.urandom(random.randrange(1, 100_000))  # noqa: S311
            await pictures.uploaded(f"old-{number}", content)
            visitors.kept[f"old-{number}"] = sha256(content).hexdigest()
        for visiting in (visitors.upload, visitors.look, visitors.delete):
            visit.create_task(visiting())

        ends: Counter[int | None] = Counter()
        async with asyncio.timeout(300):
            while ends[-signal.SIGKILL] < KILLS:
                ends[await asyncio.to_thread(killed_at_work)] += 1
        visitors.go()

    assert ends.keys() <= {-signal.SIGKILL, 0}  # the copy process may have ended before the kill
    assert await move() == 0
    for name, digest in visitors.kept.items():
        assert (await bucket.facts(f"pictures/{name}")).sha256 == digest
    for name in visitors.deleted:
        assert await bucket.size(f"pictures/{name}") is None
        assert not await pictures.folder.path(f"pictures/{name}").exists()
    assert len(visitors.deleted) > KILLS
    assert visitors.looked > KILLS


def killed_at_work() -> int | None:
    processes.set_forkserver_preload([__name__])
    copier = processes.Process(target=work, args=(dict(os.environ),))
    copier.start()
    copier.join(random.uniform(0.05, 0.35))  # noqa: S311
    copier.kill()
    copier.join()
    return copier.exitcode


def work(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    with redirect_stdout(io.StringIO()):
        mover.main(["to-s3", "--rows", ROWS])
