"""A live service to the next stage and back, by the commands printed in its runbooks."""

import asyncio
import hashlib
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from browsing import chromium
from conftest import REPO, Render

WHITE = "rgb(255, 255, 255)"
CLIMB = REPO / "benchmarks" / "live_climb"
NEW_SERVERS = "for good|the old one"

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

## 3. Three

Follow [another page](further/three.md).

## All the way back to stage 1

```bash
revert
```
"""


FOLLOWED = """\
# Another page

## 1. One

```bash
three
```

Back:

```bash
undo three
```
"""


@pytest.fixture(scope="module")
def runbook() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CLIMB)
        yield importlib.import_module("runbook")


@pytest.fixture(scope="module")
def plan(runbook: ModuleType) -> ModuleType:
    return importlib.import_module("plan")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "to-stage-2.md"
    page.write_text(PAGE, encoding="utf-8")
    (tmp_path / "further").mkdir()
    (tmp_path / "further/three.md").write_text(FOLLOWED, encoding="utf-8")
    return page


def test_the_way_is_all_commands_and_checks_in_order(runbook: ModuleType, page: Path) -> None:
    way = [block.commands for block in runbook.the_way([page])]

    assert way == ["prepare", "one", "look at one", "two", "look at two", "two again", "three"]


def test_the_way_back_begins_with_the_last_step_and_reverts_the_code_last(
    runbook: ModuleType, page: Path
) -> None:
    assert [block.commands for block in runbook.the_way_back([page])] == [
        *("undo three", "undo two", "undo one", "revert")
    ]


@pytest.mark.parametrize("text", ["# Only words\n", "## One\n\n```bash\nwithout an end\n"])
def test_a_page_without_commands_or_without_their_end_is_refused(
    runbook: ModuleType, tmp_path: Path, text: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(runbook.RunbookError, match=r"page\.md"):
        runbook.blocks(page)


@pytest.mark.parametrize(
    ("cut", "undone", "next_is"),
    [
        ("two", ["undo two"], "two"),
        ("two again", ["undo two"], "two"),  # the section begins again
        ("prepare", [], "prepare"),  # its page knows no way back
        ("undo two", [], "undo two"),
    ],
)
def test_a_section_that_was_cut_is_undone_and_begins_again(
    runbook: ModuleType, plan: ModuleType, page: Path, cut: str, undone: list[str], next_is: str
) -> None:
    both = runbook.the_way([page]) + runbook.the_way_back([page])
    steps = [plan.Step("quiet"), *(plan.Step(one.name, one) for one in both)]
    at = next(n for n, one in enumerate(steps) if one.action and one.action.commands == cut)
    stand = plan.Stand(page, 2, 1, 1, 1, faults="", next=at, is_begun=True)

    assert [one.commands for one in plan.begin_again(steps, stand)] == undone
    assert steps[stand.next].action.commands == next_is


def test_a_step_that_was_not_begun_is_the_next_one(
    runbook: ModuleType, plan: ModuleType, page: Path
) -> None:
    steps = [plan.Step(one.name, one) for one in runbook.the_way([page])]
    stand = plan.Stand(page, 2, 1, 1, 1, faults="", next=4)

    assert plan.begin_again(steps, stand) == []
    assert stand.next == 4


def test_a_step_out_of_order_is_refused_in_words(
    runbook: ModuleType, plan: ModuleType, page: Path
) -> None:
    ledger = importlib.import_module("ledger")
    steps = [plan.Step(one.name, one) for one in runbook.the_way([page])]
    stand = plan.Stand(page, 2, 1, 1, 1, faults="", next=2)
    stand.done = [ledger.Counts(steps[0].name), ledger.Counts(steps[1].name)]
    plan.refuse_out_of_order(steps, stand)

    stand.next = 4
    with pytest.raises(plan.ResumeError, match=r"with step 5: .*1\. One: check 1' was not done"):
        plan.refuse_out_of_order(steps, stand)


@pytest.mark.usefixtures("plan")  # puts the climb on the path
def test_a_check_that_fails_stops_the_climb_which_says_where_it_stands(
    plan: ModuleType, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("climb", CLIMB / "__main__.py")
    assert spec
    assert spec.loader
    climb = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(climb)
    (tmp_path / "site").mkdir()
    made = climb.Climb(plan.Stand(tmp_path / "stand.json", 2, 1, 1, 1, faults=""))
    made.place.variables = {"SITE": str(tmp_path / "site")}

    with pytest.raises(climb.StepError) as stopped:
        asyncio.run(made._executed('echo "it is off"\nfalse\ntouch later', "2. Two: check 1"))
    said = str(stopped.value)
    assert "stands at '2. Two: check 1'" in said
    assert "false\ntouch later" in said  # the commands
    assert said.endswith("it is off\n")
    assert not (tmp_path / "site/later").exists()


def test_where_a_climb_stands_is_written_down(plan: ModuleType, tmp_path: Path) -> None:
    ledger = importlib.import_module("ledger")
    stand = plan.Stand(tmp_path / "stand.json", 4, 8, 60.0, 60, faults=".", next=7, head="c0ffee")
    stand.done.append(
        ledger.Counts("stage 1, nothing happens", milliseconds=ledger.Times([1.5, 2.5]))
    )
    stand.write()

    assert plan.Stand.of(tmp_path) == stand


def test_a_folder_where_no_climb_was_is_refused_in_words(plan: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(plan.ResumeError, match="there is no"):
        plan.Stand.of(tmp_path)


@pytest.mark.usefixtures("plan")  # puts the climb on the path
@pytest.mark.parametrize("times", [[7.0], [1.0, 9.0], [3.0] * 50 + [90.0]])
def test_the_p99_of_few_requests_is_not_above_the_slowest(times: list[float]) -> None:
    ledger = importlib.import_module("ledger")
    counts = ledger.Counts("a step", milliseconds=ledger.Times(times))

    assert min(times) < counts.p99 <= max(times) or counts.p99 == times[0]


@pytest.mark.usefixtures("plan")  # puts the climb on the path
def test_a_million_times_are_kept_as_few_numbers_and_their_p99_to_three_digits() -> None:
    times = importlib.import_module("ledger").Times(n / 1000 for n in range(1, 100_001))

    assert len(times) == 100_000
    assert len(times.counted) < 3000
    assert times.at(50) == pytest.approx(50, rel=0.005)
    assert times.at(99) == pytest.approx(99, rel=0.005)


def test_the_quiet_steps_share_the_total_that_was_asked_for(plan: ModuleType) -> None:
    ledger = importlib.import_module("ledger")
    stand = plan.Stand(Path(), 2, 1, 1, requests=10, faults="", total=300)
    carried = []
    for name in (f"stage 1{plan.QUIET}", "1. One: do 1", f"stage 2{plan.QUIET}", "back", "last"):
        wanted = stand.requests_of_a_quiet_step() if name.endswith(plan.QUIET) else 40
        carried.append(wanted)
        stand.done.append(ledger.Counts(name, milliseconds=ledger.Times([1.0] * wanted)))

    assert carried == [100, 40, 60, 40, 40]
    assert stand.requests_of_a_quiet_step() == 20


@pytest.mark.usefixtures("plan")  # puts the climb on the path
def test_at_the_end_a_file_counts_once_as_lost_or_as_failed(tmp_path: Path) -> None:
    """The owner of four files: whole, gone, with other bytes, and for now not available."""
    ledger = importlib.import_module("ledger").Ledger(tmp_path / "ledger")
    answers = {"whole": (200, b"whole"), "gone": (404, b""), "other": (200, b"else")}
    for upload in (*answers, "away"):
        digest = hashlib.sha256(upload.encode()).hexdigest()
        ledger.note("uploads", id=upload, sha256=digest, email="visitor-0@example.com")

    async def answer(requests: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await requests.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                upload = path.split("/")[2]
                if path.startswith("/uploads/"):
                    status, body = (503 if upload == "away" else 307), b""
                else:
                    status, body = answers[upload]
                lines = f"HTTP/1.1 {status} \r\nLocation: /files/{upload}\r\n"
                client.write(f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        client.close()

    async def read_them() -> Any:
        async with await asyncio.start_server(answer, "127.0.0.1") as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            load = importlib.import_module("visitors").Load(url, ledger, visitors=1, rate=1000)
            await load.read_all_files()
            server.close_clients()
            return load

    load = asyncio.run(read_them())
    assert (load.counts.lost, load.counts.failed) == (2, 1)
    assert len(ledger.seen) == 3


def test_a_failover_executes_one_section_of_its_page_with_the_functions(
    runbook: ModuleType, page: Path
) -> None:
    assert runbook.section_of(page, "2.") == "prepare\ntwo\nlook at two\ntwo again"
    with pytest.raises(runbook.RunbookError, match=r"no commands in a section '7\.'"):
        runbook.section_of(page, "7.")


def test_a_fault_follows_a_page_or_its_way_back(runbook: ModuleType, page: Path) -> None:
    text = f"before\nfollow {page.name} 2.\nfollow {page.name} 2. back\nafter"

    assert runbook.followed(text, page.parent).splitlines() == [
        "before",
        *("prepare", "two", "look at two", "two again"),
        *("prepare", "undo two"),
        "after",
    ]
    with pytest.raises(runbook.RunbookError, match=r"no commands in a section '7\.'"):
        runbook.followed(f"follow {page.name} 7.", page.parent)


def test_a_change_of_servers_that_was_cut_is_not_gone_on_with(plan: ModuleType) -> None:
    kills = importlib.import_module("kills")
    changes = [one for one in kills.FAULTS if one.failover or one.exchanged]
    assert len(changes) == 4
    for one in changes:
        stand = plan.Stand(Path(), 2, 1, 1, 1, faults=".")
        plan.refuse_out_of_order([plan.Step(one.name, one)], stand)
        stand.is_begun = True
        with pytest.raises(plan.ResumeError, match=f"{one.what}. was cut"):
            plan.refuse_out_of_order([plan.Step(one.name, one)], stand)


@pytest.mark.usefixtures("plan")  # puts the climb on the path
@pytest.mark.parametrize(("listed", "given_up", "faults"), [(0, 0, 2), (1, 1, 1), (5, 2, 0)])
def test_a_failover_loses_no_more_commits_than_its_runbook_lists(
    tmp_path: Path, listed: int, given_up: int, faults: int
) -> None:
    ledger = importlib.import_module("ledger").Ledger(tmp_path / "ledger")
    load = importlib.import_module("visitors").Load("http://127.0.0.1:9", ledger, 1, 1.0)
    load.held = []
    load.fault("lost", "1 of orders")
    load.fault("logged_out", "GET /me")
    stock = "GET /products/{id} after an order"
    load.fault("stale", f"{stock} (ada@example.com, token)")
    load.fault("stale", f"{stock} (eve@example.com, cookie)")
    load.fault("failed", "GET /orders: 500 b''")  # no lost commit explains it
    load.settle(listed)

    assert load.counts.given_up == given_up + (2 if listed else 1)
    assert load.counts.stale == (0 if listed else 1)
    assert load.counts.lost + load.counts.logged_out == faults
    assert load.counts.failed == 1


@pytest.mark.usefixtures("plan")  # puts the climb on the path
def test_what_a_failover_lost_is_counted_once_also_after_a_stop(tmp_path: Path) -> None:
    kind = importlib.import_module("ledger").Ledger
    ledger = kind(tmp_path / "ledger")
    ledger.note("account", email="ada@example.com")
    ledger.note("ended", token="ended")  # noqa: S106  # a name
    for one in ("kept", "gone"):
        ledger.note("orders", id=one)
        ledger.note("uploads", id=one, sha256=one, email="ada@example.com")
    for table in ("orders", "uploads"):
        ledger.forget(table, "gone")
    ledger.forget("ended", "ended")
    ledger.forget("accounts", "ada@example.com")

    for one in (ledger, kind(tmp_path / "ledger")):
        assert one.rows["orders"] == one.rows["uploads"] == {"kept"}
        assert one.files == {"ada@example.com": [("kept", "kept")]}
        assert (one.ended, one.accounts) == ([], {})


@pytest.mark.usefixtures("plan")  # puts the climb on the path
def test_a_climb_kills_only_servers_of_the_stages_that_it_reaches() -> None:
    kills = importlib.import_module("kills")

    assert {one.stage for one in kills.faults_at(1, 2, ".")} == {1}
    assert {one.stage for one in kills.faults_at(2, 2, ".")} == {1, 2}
    assert {one.stage for one in kills.faults_at(3, 4, ".")} == {3}
    assert kills.faults_at(4, 4, ".") == list(kills.FAULTS)
    assert {one.stage for one in kills.faults_at(4, 4, NEW_SERVERS)} == {2, 3, 4}
    assert {one.stage for one in kills.faults_at(3, 3, NEW_SERVERS)} == {2, 3}


@pytest.mark.parametrize(("pattern", "says"), [("(", "is not a pattern"), ("fire", "no fault in")])
def test_a_pattern_that_chooses_no_fault_is_refused_in_words(pattern: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, CLIMB, f"--faults={pattern}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("plan")  # puts the climb on the path
@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/uploads/1/image", 503, "announced"),
        ("/uploads/1/image", 500, "failed"),  # not even while a server is away
        ("/uploads/1/image", 404, "failed"),
        ("/orders", 503, "failed"),  # these do not need S3
    ],
)
def test_while_s3_is_away_only_requests_for_files_may_fail_and_only_in_the_right_way(
    tmp_path: Path, path: str, status: int, kind: str
) -> None:
    kills = importlib.import_module("kills")
    s3 = next(one for one in kills.FAULTS if "S3" in one.what)

    async def answer(requests: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await requests.readuntil(b"\r\n\r\n")
        client.write(f"HTTP/1.1 {status} \r\nContent-Length: 0\r\n\r\n".encode())
        client.close()

    async def ask() -> Any:
        async with await asyncio.start_server(answer, "127.0.0.1") as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ledger = importlib.import_module("ledger").Ledger(tmp_path / "ledger")
            visitors = importlib.import_module("visitors")
            load = visitors.Load(url, ledger, visitors=1, rate=1000)
            load.announced, load.may_fail = s3.is_announced, s3.may_fail
            visitor = load._visitors[0]
            with pytest.raises(visitors.GoneWrongError):
                await visitor._ask("GET", path)
            visitor._browser.close()
            server.close_clients()
            return load.counts

    counts = asyncio.run(ask())
    assert {one: getattr(counts, one) for one in ("announced", "failed")} == {
        **{"announced": 0, "failed": 0},
        kind: 1,
    }


def test_the_page_shows_the_limit_of_the_p99_and_where_each_stage_begins(
    plan: ModuleType, tmp_path: Path
) -> None:
    report, ledger = importlib.import_module("report"), importlib.import_module("ledger")
    steps = [
        ledger.Counts(f"stage 1{plan.QUIET}", 3.0, ledger.Times([10.0, 10.0])),
        ledger.Counts("to-stage-2.md: 1. One: do 1", 2.0, ledger.Times([60.0, 60.0])),
        ledger.Counts(f"stage 2{plan.QUIET}", 3.0, ledger.Times([12.0, 12.0])),
    ]
    report.write_page(tmp_path / "climb.html", steps, [])

    page = (tmp_path / "climb.html").read_text(encoding="utf-8")
    assert "3 times the p99 of the first quiet step: 30 ms" in page
    assert 'y1="80.0" y2="80.0"' in page  # the highest bar is twice the limit, and 160 high
    assert re.findall(r"<text[^>]*>(.*?)</text>", page) == ["stage 1", "stage 2"]


@pytest.mark.usefixtures("runbook")
def test_the_page_fits_a_phone_and_follows_dark_mode(tmp_path: Path) -> None:
    report, ledger = importlib.import_module("report"), importlib.import_module("ledger")
    steps = [ledger.Counts("to-stage-2.md: 1. One: do 1", 2.0, ledger.Times([60.0, 60.0]))]
    report.write_page(tmp_path / "climb.html", steps, [])

    with chromium(tmp_path / "profile") as page:
        page.looks_like(width=360, height=740, scheme="dark")
        page.goes_to((tmp_path / "climb.html").as_uri())
        assert page.finds("document.documentElement.scrollWidth") == 360
        assert page.finds("getComputedStyle(document.querySelector('h1')).color") == WHITE


def test_every_command_from_stage_to_stage_is_a_shell_command(
    runbook: ModuleType, render: Render
) -> None:
    pages = render({"stage": 4, "replica_routing": True}) / "docs" / "runbooks"
    to_stages = (f"to-stage-{stage}.md" for stage in (2, 3, 4))
    for name in ("deploy.md", "replicas/add-a-replica.md", *to_stages):
        for block in runbook.blocks(pages / name):
            assert_is_shell(block.name, block.commands)
    for fault in importlib.import_module("kills").FAULTS:
        commands = runbook.followed(fault.commands, pages)
        assert not re.search("(?m)^follow ", commands), fault.name
        assert_is_shell(fault.name, commands)


def assert_is_shell(name: str, commands: str) -> None:
    done = subprocess.run(
        ["bash", "-n", "-c", commands], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_live_service_goes_to_stage_3_and_back_after_a_kill_and_no_client_notices(
    template: Path, tmp_path: Path
) -> None:
    page = tmp_path / "climb.html"
    quick = ["--to=3", "--visitors=8", "--rate=30", "--requests=40", f"--faults={NEW_SERVERS}"]
    with subprocess.Popen(
        [sys.executable, CLIMB, "--template", template, *quick],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as first:
        assert first.stdout
        told = next(filter(None, (re.search(r"--resume (\S+)", line) for line in first.stdout)))
        folder = Path(told[1])
        log = folder / "commands.log"
        while not log.exists() or "3. The pooler: do 2\n" not in log.read_text(encoding="utf-8"):
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.05)
        first.kill()
    done = subprocess.run(
        [sys.executable, CLIMB, "--resume", folder, f"--html={page}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The climb stands at to-stage-2.md: 3. The pooler: do 2, which was cut" in done.stdout
    assert "It goes on with to-stage-2.md: 3. The pooler: do 1." in done.stdout
    assert done.stdout.count("| stage 3, nothing happens |") == 1
    assert done.stdout.count("and its replica takes over |") == 2
    assert done.stdout.count("and a new one takes its place |") == 1
    assert done.stdout.count("a new replica takes the place of the old one |") == 2
    assert done.stdout.count("| stage 1 again, nothing happens |") == 1
    assert "<svg" in page.read_text(encoding="utf-8")
