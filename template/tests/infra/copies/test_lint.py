# Rung's file: advancing to another stage may change it.
"""The lint for state in the memory of one copy."""

import os
from pathlib import Path

import pytest

from dev.copies.lint import find
from tests.infra.conftest import run_python

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("tries = {}\ndef log_in(address):\n    tries[address] = 1", 3),
        ("tries: dict[str, int] = {}\nasync def log_in(a):\n    del tries[a]", 3),
        ("tries = defaultdict(int)\ndef log_in(address):\n    tries[address] += 1", 3),
        ("tries = defaultdict(list)\ndef log_in(address):\n    tries[address].append(1)", 3),
        ("seen = set()\nclass A:\n    def see(self, key):\n        seen.add(key)", 4),
        ("KEYS = [key for key in ()]\ndef place(key):\n    KEYS.append(key)", 3),
        ("visits = 0\ndef count():\n    global visits\n    visits += 1", 3),
        ("from app.orders.service import KEYS\ndef place(key):\n    KEYS.add(key)", 3),
        ("from app.orders import service\ndef place(key):\n    service.KEYS[key] = 1", 3),
        ("lock = asyncio.Lock()", 1),
        (
            "def throttled(route):\n    tries = {}\n    async def call(address):\n"
            "        tries[address] = 1\n    return call",
            4,
        ),
        ("class Stock:\n    one_at_a_time = threading.Semaphore(1)", 2),
        ("jobs = asyncio.Queue()", 1),
        ("numbers = itertools.count(1)", 1),
        ("@lru_cache\ndef user(session_id):\n    ...", 1),
        ("class A:\n    @functools.cache\n    def b(self):\n        ...", 2),
        ("@cached(ttl=60)\nasync def user(session_id):\n    ...", 1),
        ("def see(request):\n    request.app.state.seen[request.client] = 1", 2),
        ("async def see(request):\n    request.app.state.visits += 1", 2),
        (
            "class Throttle:\n    def __init__(self):\n        self.tries = {}\n"
            "    def count(self, address):\n        self.tries[address] = 1\n"
            "throttle = Throttle()",
            6,
        ),
        (
            "class Throttle:\n    def __init__(self, app):\n        self.tries = {}\n"
            "    async def __call__(self, scope, receive, send):\n"
            "        self.tries.setdefault(scope['client'], 0)",
            5,
        ),
    ],
)
def test_state_of_one_copy_is_found(code: str, line: int) -> None:
    [found] = find(code)

    assert found.line == line


@pytest.mark.parametrize(
    "code",
    [
        "SIGNATURES = {'image/png': b'PNG'}\ndef is_png(data):\n    return SIGNATURES['image/png']",
        "names = []\ndef list_all():\n    names = []\n    names.append('a')\n    return names",
        "tags = {}\ndef tagged(tags):\n    tags['a'] = 1",
        "routers = []\nrouters.append(1)",
        "async def all(ids):\n    found = []\n    async def one(id):\n        found.append(id)",
        "ROWS = func.count()",
        "def install(app):\n    app.state.database = Database()",
        "@lru_cache\ndef settings():\n    return Settings()",
        "class Order:\n    def pay(self):\n        self.paid = True",
        "class Cart:\n    def __init__(self):\n        self.items = []\n"
        "    def add(self, item):\n        self.items.append(item)",
        "from app import cart\nasync def leave(write):\n    await cart.remove(write)",
        "tries = {}\ndef log_in(a):\n    tries[a] = 1  # per copy: only slows a flood down",
    ],
)
def test_state_that_is_the_same_in_every_copy_is_allowed(code: str) -> None:
    assert find(code) == []


def test_a_comment_that_allows_state_needs_a_reason() -> None:
    assert find("lock = Lock()  # per copy:")


def test_this_repo_keeps_no_state_in_one_copy() -> None:
    done = run_python("-m", "dev.copies.lint")

    assert done.returncode == 0, done.stderr


def test_the_lint_says_where_and_what_to_do_instead(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "throttle.py").write_text(
        "tries = {}\n\n\ndef count(address: str) -> None:\n    tries[address] = 1\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run_python("-m", "dev.copies.lint", cwd=tmp_path, env=environment)

    assert done.returncode == 1
    assert "app/throttle.py:5: tries: keep it in Redis or a table, for all copies" in done.stderr
