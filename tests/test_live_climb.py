"""A live service to the next stage and back, by the commands printed in its runbooks."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPO, Render

CLIMB = REPO / "benchmarks" / "live_climb"

PAGE = """\
# A page

```bash
prepare
```

## 1. One

```bash
one
```

- Check: it is there.

```bash
look at one
```

Back: away with it.

```bash
undo one
```

## 2. Two

1. First.

```bash
two
```

Check: it answers.

```bash
look at two
```

2. Then.

```bash
two again
```

```haproxy
not a command
```

Back:

```bash
undo two
```

## All the way back to stage 1

```bash
revert
```
"""


@pytest.fixture(scope="module")
def runbook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("runbook", CLIMB / "runbook.py")
    assert spec
    assert spec.loader
    module = sys.modules["runbook"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "to-stage-2.md"
    page.write_text(PAGE, encoding="utf-8")
    return page


def test_the_way_is_all_commands_and_checks_in_order(runbook: ModuleType, page: Path) -> None:
    way = [block.commands for block in runbook.the_way([page])]

    assert way == ["prepare", "one", "look at one", "two", "look at two", "two again"]


def test_the_way_back_begins_with_the_last_step_and_reverts_the_code_last(
    runbook: ModuleType, page: Path
) -> None:
    assert [block.commands for block in runbook.the_way_back([page])] == [
        *("undo two", "undo one", "revert")
    ]


@pytest.mark.parametrize("text", ["# Only words\n", "## One\n\n```bash\nwithout an end\n"])
def test_a_page_without_commands_or_without_their_end_is_refused(
    runbook: ModuleType, tmp_path: Path, text: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(runbook.RunbookError, match=r"page\.md"):
        runbook.blocks(page)


def test_every_command_of_the_runbooks_from_stage_to_stage_is_a_shell_command(
    runbook: ModuleType, render: Render
) -> None:
    pages = render({"stage": 3, "replica_routing": True}) / "docs" / "runbooks"
    to_stage_2 = ("to-stage-2.md", "replicas/add-a-replica.md")
    for name in ("deploy.md", *to_stage_2, "to-stage-3.md", "cache/add-the-cache.md"):
        for block in runbook.blocks(pages / name):
            done = subprocess.run(
                ["bash", "-n", "-c", block.commands], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block.name}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_live_service_goes_to_stage_3_and_back_and_no_client_notices(
    template: Path, tmp_path: Path
) -> None:
    page = tmp_path / "climb.html"
    quick = ["--to=3", "--visitors=8", "--rate=60", "--requests=60", f"--html={page}"]
    done = subprocess.run(
        [sys.executable, CLIMB, "--template", template, *quick],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| stage 3, nothing happens |" in done.stdout
    assert "| stage 1 again, nothing happens |" in done.stdout
    assert "<svg" in page.read_text(encoding="utf-8")
