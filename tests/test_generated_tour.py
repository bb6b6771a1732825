"""A new owner's first minutes: `make dev`, `make tour`, a restart."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from conftest import Render
from serving import free_port, make_dev
from variants import OPTIONS, STAGES, at, variant_name

# Each stage without options, and the last one with all.
TOURED = [*(at(stage, ()) for stage in STAGES), at(STAGES[-1], OPTIONS)]


@pytest.mark.slow
@pytest.mark.parametrize("variant", TOURED, ids=variant_name)
def test_the_tour_works_twice_and_its_data_survives_a_restart(
    render: Render, tmp_path: Path, variant: dict[str, Any]
) -> None:
    project = tmp_path / "shop"
    log = project.with_suffix(".log")
    shutil.copytree(render(variant), project)
    port = free_port()

    with make_dev(project, port) as url:
        _take_the_tour(project, f"PORT={port}")
        time.sleep(1)  # The tour puts the second into the names that it makes.
        account, products, order, _announced, upload = _take_the_tour(project, f"HOST={url}")
        _assert_every_printed_link_works(log)

    assert re.fullmatch(r"ada-\d+@example\.com", account["email"])
    assert len(products["products"]) == 3
    assert order["items"][0]["quantity"] == 2
    assert upload["size"] == 14

    with make_dev(project, port) as url, urlopen(f"{url}/products?limit=3") as again:
        after_restart = json.load(again)
    # The first start seeded; the second says it again.
    assert "Staff: staff@example.com, password" in log.read_text(encoding="utf-8")
    ordered = order["items"][0]["product_id"]
    before = {product["id"]: product["stock"] for product in products["products"]}
    after = {product["id"]: product["stock"] for product in after_restart["products"]}
    assert after == {**before, ordered: before[ordered] - 2}


def _take_the_tour(project: Path, where: str) -> list[Any]:
    tour = subprocess.run(
        ["make", "tour", where],
        cwd=project,
        env=os.environ | {"http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tour.returncode == 0, tour.stdout + tour.stderr
    return [json.loads(line) for line in tour.stdout.splitlines() if line.startswith("{")]


def _assert_every_printed_link_works(log: Path) -> None:
    links = re.findall(r"^  \w.* (http://\S+)$", log.read_text(encoding="utf-8"), re.MULTILINE)
    assert links
    for link in links:
        with urlopen(link) as page:
            assert page.status == 200
