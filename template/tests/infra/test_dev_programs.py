# Rung's file: advancing to another stage may change it.
"""A program that a developer's command needs and that does not run is named in one line."""

import errno
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest

from dev import __main__ as dev
from dev import ports, postgres, programs, services, supervisor
from dev.deploy import programs as deploy_programs
from dev.deploy.programs import Stop
from dev.server import ServerError
from tests.infra.conftest import run_python


def program(folder: Path, text: str, mode: int = 0o755) -> str:
    made = folder / "squawk"
    made.write_text(text, encoding="utf-8")
    made.chmod(mode)
    return str(made)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("#!/bin/sh", 0o644, "Permission denied"),
        ("#!/nowhere/sh", 0o755, "No such file or directory"),
        ("words", 0o755, "Exec format error"),
    ],
)
def test_a_program_that_does_not_start_is_named(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    name = program(tmp_path, text, mode)
    with pytest.raises(SystemExit, match=f"Cannot run {name}: {said}. Run make setup"):
        programs.run(name)
    with pytest.raises(Stop, match=f"Cannot run {name}: {said}. Is it installed"):
        deploy_programs.run(name)
    with pytest.raises(Stop, match=f"Cannot run {name}: {said}. Is it installed"):
        deploy_programs.output(name)


def test_a_program_that_is_missing_or_never_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Cannot run no-such-program: No such file"):
        programs.run("no-such-program")
    with pytest.raises(SystemExit, match="did not end within 0 s"):
        programs.run(program(tmp_path, "#!/bin/sh\nexec sleep 600\n"), timeout=0.2)
    assert programs.run(program(tmp_path, "#!/bin/sh\nexit 7\n")).returncode == 7


def test_a_command_of_dev_that_does_not_start_is_named(tmp_path: Path) -> None:
    name = program(tmp_path, "words")
    code = f"import dev.__main__ as dev; exit(dev.run([{name!r}], dict()))"
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (126, f"Cannot run {name!r}: Exec format error.\n")


@pytest.mark.parametrize(
    ("platform", "left_out", "workers"),
    [("darwin", [], 6), ("darwin", ["tests/infra"], 16), ("linux", [], 16)],
)
def test_the_servers_of_all_workers_fit_into_macos_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    platform: str,
    left_out: list[str],
    workers: int,
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "16")
    monkeypatch.setattr("sys.platform", platform)
    config = Mock(getoption={"ignore": left_out}.get)
    assert pytestconfig.hook.pytest_xdist_auto_num_workers(config=config) == workers


def test_servers_of_this_machine_are_reached_without_a_proxy() -> None:
    """A company's proxy cannot reach them, and its variables often name no exception."""
    code = "import dev; from urllib.request import proxy_bypass as is_direct;"
    code += "print(*map(is_direct, ['127.0.0.1', 'localhost', 'a.example', 'b.example']))"
    proxy = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "a.example"}
    given = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = run_python("-c", code, env=given | proxy)
    assert done.stdout.split() == ["True", "True", "True", "False"], done.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9/"])
def test_a_socks_proxy_stops_no_client(proxy: str) -> None:
    """As VPN programs and GNOME set it. httpx refuses both kinds."""
    given = os.environ | {"ALL_PROXY": proxy}
    done = run_python("-c", "import dev, httpx; httpx.Client()", env=given)
    assert done.returncode == 0, done.stderr


def test_a_file_system_without_permissions_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /mnt/c in WSL, where mkdir ignores the mode."""
    mkdir = os.mkdir

    def mkdir_for_all(path: Path, mode: int) -> None:
        mkdir(path)
        Path(path).chmod(0o777)

    monkeypatch.setattr(os, "mkdir", mkdir_for_all)
    with pytest.raises(ServerError, match="such as /mnt/c in WSL"):
        postgres.fill(tmp_path / "data", "secret", lambda data: ["true"])


def test_a_root_that_may_not_give_files_away_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a user namespace of one user, and on NFS."""

    def refuse(path: Path, *owner: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    monkeypatch.setattr(postgres, "SERVER_USER", 65534)
    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ServerError, match=r"Root may not .*Invalid argument"):
        postgres.fill(tmp_path / "data", "secret", lambda data: ["true"])


def test_a_copy_that_fails_says_why_although_its_log_is_empty(tmp_path: Path) -> None:
    """Its disk may be full."""

    def start() -> None:
        postgres.fill(tmp_path / "data", "", lambda _: ["sh", "-c", "echo Disk full >&2; exit 4"])

    with (
        pytest.raises(ServerError, match="Disk full"),
        supervisor.shared(tmp_path, start, remove=False),
    ):
        pass
    assert not (tmp_path / "log").read_text()


def test_a_server_that_has_just_begun_stops_in_a_background_job_too(tmp_path: Path) -> None:
    (tmp_path / "users").touch()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `make dev &`
    try:
        supervised = supervisor.supervise(
            ["sleep", "60"], tmp_path, env=os.environ, stop_with=signal.SIGINT
        )
    finally:
        signal.signal(signal.SIGINT, before)
    supervised.wait(30)


def test_a_disk_that_is_full_is_named_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(services, "environment", full)
    monkeypatch.setattr("sys.argv", ["dev", "true"])
    with pytest.raises(SystemExit, match=r"No space left on device: .*\n.*set DATABASE_URL"):
        dev.main()


def test_files_that_a_full_disk_left_empty_are_written_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port, key = tmp_path / "port", tmp_path / ".dev" / "secret_key"
    monkeypatch.setattr(services, "SECRET_KEY", key)
    monkeypatch.setattr(services, "SERVICES", {})
    key.parent.mkdir()
    for file in (port, key):
        file.touch()
    assert not postgres.Postgres(tmp_path).is_running()
    ports.keep(port)
    assert int(port.read_text())
    with services.environment({"DATABASE_URL": "given", "FILES_FOLDER": "given"}) as environment:
        assert len(environment["SECRET_KEY"]) >= 32


NEEDS_A_SERVER = """
import pytest
from dev.server import ServerError

@pytest.fixture(scope="session")
def server():
    raise ServerError("The disk is full.")

@pytest.mark.parametrize("number", range(3))
def test_shop(server, number): ...
"""


def test_each_test_that_needs_a_server_says_why_it_does_not_run(tmp_path: Path) -> None:
    """After a SystemExit in a fixture, each later test would show an error of pytest itself."""
    tests = tmp_path / "test_shop.py"
    tests.write_text(NEEDS_A_SERVER, encoding="utf-8")
    plain = "-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)
    ended = run_python("-m", "pytest", "-q", "-rN", *plain, "-c", os.devnull, str(tests))
    assert ended.stdout.count("ServerError: The disk is full.\n") == 3, ended.stdout
