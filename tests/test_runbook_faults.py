"""The commands of the runbooks when a step is killed and repeated, or one of them fails."""

import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import REPO, until
from growing import Repo
from serving import free_port

LIVE_CLIMB = REPO / "benchmarks" / "live_climb"
PAGES = REPO / "template/docs/runbooks"
ALL_PAGES = [
    page
    for page in (*sorted(PAGES.rglob("*.md")), REPO / "template/app/accounts/unlocking.md")
    if "```bash" in page.read_text(encoding="utf-8")
]
OLD, NEW = "host=10.0.1.5 port=5432 dbname=app", "host=10.0.2.5 port=5432 dbname=app"

NOT_ANSWERING = (
    "psql",
    "curl",
    "redis-cli",
    "python",
    "rclone",
    "barman-cloud-backup-list",
    "make",
)

CONTROLDATA = "echo 'Latest checkpoint location: 0/1'"

# Like uvicorn, it handles SIGINT itself. It answers as HAProxy too.
APP = """
import os, signal
from http.server import BaseHTTPRequestHandler, HTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"app,{os.environ['PORT']},0,UP,\\n".encode())

signal.signal(signal.SIGINT, signal.default_int_handler)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ready).serve_forever()
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "app.env"
        self.ini = folder / "pgbouncer.ini"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.variables = {"SITE": str(folder), "POOLER": str(folder), "ONE": "1", "TWO": "2"}

    def bash(
        self, commands: str, pasted: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """In the shell of a person, which has no -e."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", f"{commands_of('deploy.md')}\n{commands}"],
            env=os.environ | self.variables | {"PATH": path} | more,
            input=pasted,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def step(
        self, pasted: str, functions: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A deploy in it does nothing."""
        return self.bash(f"deploy() {{ echo deployed; }}\n{functions}\nstep", pasted, **more)

    def program(self, name: str, commands: str) -> None:
        (self.programs / name).write_text(f"#!/bin/bash\n{commands}\n", encoding="utf-8")
        (self.programs / name).chmod(0o755)

    def release(self, python: str) -> None:
        """`python`: the commands that stand for its Python."""
        (self.folder / "release/.venv").mkdir(parents=True)
        (self.folder / "release/.venv/bin").symlink_to(self.programs)
        self.program("python", python)

    @contextmanager
    def process(self, pid_file: str = "pid", **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Stands for PgBouncer or the app. Any signal ends it, so a test sees whether one came."""
        with subprocess.Popen(["sleep", "600"], env=os.environ | variables) as process:
            (self.folder / pid_file).write_text(str(process.pid), encoding="utf-8")
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def copies(self, **variables: str) -> Iterator[None]:
        with self.process("1.pid", **variables), self.process("2.pid", **variables):
            yield


def commands_of(
    page: str, section: str = "", part: str = "do", without: str | tuple[str, ...] = "\n"
) -> str:
    """The commands of a page, except lines that begin with `without`."""
    found = [
        line
        for one in importlib.import_module("runbook").blocks(PAGES / page)
        if one.section.startswith(section) and bool(one.section) == bool(section)
        if one.part == part
        for line in one.commands.splitlines()
        if not line.startswith(without)
    ]
    assert found, f"{page} has no commands in {section!r}"
    return "\n".join(found)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(LIVE_CLIMB)
    return Site(tmp_path)


def lines_of(page: Path) -> list[str]:
    """The commands of a page. One that goes on in the next line is one line here."""
    blocks = importlib.import_module("runbook").blocks(page)
    own = "\n".join(one.commands for one in blocks if one.page == page.name)
    return re.sub(r"\\\n|(?<= \|)\n", " ", own).splitlines()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("site")
def test_the_first_of_several_statements_or_urls_may_not_fail_unnoticed(page: Path) -> None:
    """Without these options, psql and curl exit as the last one did."""
    for line in lines_of(page):
        before, *calls = re.split(r"\bpsql\b", line)
        for call in calls:
            own = call.split(" | ")[0]
            piped = re.search(r"[^|]\|\s*$", before) and " -c" not in own
            if piped or "<<" in own or len(re.findall(r" -\w*c (?=[\"'])", own)) > 1:
                assert "-v ON_ERROR_STOP=1" in own, f"psql{call}"
            before = call
        if len(re.findall(r"\bcurl\b|\bhttp://", line.split("; ")[0])) > 2:
            assert "--fail-early" in line, line


def test_settings_that_cannot_be_written_stay_as_they_were(site: Site) -> None:
    """The disk is full, and a plain shell has no -e."""
    site.settings.write_text("A='1'\n", encoding="utf-8")
    site.program("sed", "exit 4")
    assert site.bash("settings A= B=2").returncode != 0
    assert site.settings.read_text(encoding="utf-8") == "A='1'\n"


def test_ctrl_c_in_a_step_does_not_stop_the_process_that_it_has_deployed(site: Site) -> None:
    port = free_port()
    site.settings.touch()
    site.release(f"exec {sys.executable} {site.folder}/app.py")
    (site.folder / "app.py").write_text(APP, encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    pid = site.folder / f"{port}.pid"
    try:
        with subprocess.Popen(
            ["bash", "-c", f"{commands_of('deploy.md')}\nstep"],
            env=os.environ | {"SITE": str(site.folder), "BALANCER": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as step:
            assert step.stdin is not None
            assert step.stdout is not None
            step.stdin.write(f"deploy {port}\necho deployed\nsleep 60\n")
            step.stdin.close()
            assert step.stdout.readline() == "deployed\n"
            deployed = int(pid.read_text())
            group = os.getpgid(deployed)
            while step.poll() is None:  # bash loses a signal that comes as it starts a command
                os.killpg(step.pid, signal.SIGINT)  # as Ctrl-C does
                time.sleep(0.2)
        assert group == deployed != step.pid
        assert site.bash("alone").returncode == 0  # that process does not hold the lock
        with urllib.request.urlopen(f"{url}/ready") as answer:
            assert answer.status == 200
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_deploy_stops_at_a_process_that_does_not_start(site: Site) -> None:
    site.settings.touch()
    site.release("echo 'SECRET_KEY is missing'\nexit 1")
    first, second = free_port(), free_port()
    nobody = f"http://127.0.0.1:{free_port()}"
    with site.process(f"{second}.pid") as serving:
        done = site.bash(f"deploy {first} {second}", BALANCER=nobody)
        assert serving.poll() is None

    assert done.returncode == 1
    assert done.stderr == f"{first} is not ready:\nSECRET_KEY is missing\n"


def test_a_deploy_ends_no_other_program_that_has_the_number_of_a_process(site: Site) -> None:
    site.settings.touch()
    site.release("exit 1")
    port = free_port()
    with site.process(f"{port}.pid") as other:
        site.bash(f"deploy {port}", BALANCER=f"http://127.0.0.1:{free_port()}")
        assert other.poll() is None


def test_a_deploy_kills_a_process_that_hangs(site: Site) -> None:
    site.settings.touch()
    site.release("exit 1")
    site.program("timeout", 'exec /usr/bin/timeout 1 "${@:2}"')
    port = str(free_port())
    with subprocess.Popen(["sleep", "600"], env=os.environ | {"PORT": port}) as hung:
        try:
            (site.folder / f"{port}.pid").write_text(str(hung.pid), encoding="utf-8")
            hung.send_signal(signal.SIGSTOP)
            site.bash(f"deploy {port}", BALANCER=f"http://127.0.0.1:{free_port()}")
            assert hung.wait(10) == -signal.SIGKILL
        finally:
            hung.kill()


def test_a_release_that_is_killed_and_repeated_has_all_files(site: Site, repo: Repo) -> None:
    site.settings.touch()
    for name in ("sh", "true"):
        site.program(name, "exit 0")  # no packages
    git = shutil.which("git")
    site.program(
        "git",
        f"""[[ "$*" == *"worktree add"* && ! -e {site.folder}/once ]] || exec {git} "$@"
touch {site.folder}/once
{git} "${{@:1:4}}" --no-checkout "${{@:5}}"
kill -9 $PPID""",
    )
    site.variables |= {"REPO": str(repo.folder), "MIGRATE": "true"}
    assert site.bash("release HEAD").returncode == 128 + signal.SIGKILL
    assert not (site.folder / "release").exists()
    for _ in range(2):
        done = site.bash("release HEAD")
        assert (done.returncode, done.stderr) == (0, "")
        assert (site.folder / "release/pyproject.toml").is_file()


def test_a_release_whose_migration_fails_is_not_what_the_next_deploy_starts(
    site: Site, repo: Repo
) -> None:
    site.settings.touch()
    site.program("sh", "exit 0")  # no packages
    site.program("alembic", "ls pyproject.toml && [ ! -e $SITE/locked ]")
    site.variables |= {"REPO": str(repo.folder)}
    link = site.folder / "release"
    link.symlink_to(site.folder / "before")
    (site.folder / "locked").touch()
    assert site.bash("release HEAD").returncode != 0
    assert link.readlink() == site.folder / "before"
    (site.folder / "locked").unlink()
    done = site.bash("release HEAD")
    assert (done.returncode, done.stdout) == (0, "pyproject.toml\n"), done.stderr
    assert (link / "pyproject.toml").is_file()


def test_release_deploy_and_settings_refuse_to_run_at_the_same_time(site: Site, repo: Repo) -> None:
    """Each deploy would stop the new process of the other one, and of two changes of the settings
    one would leave a file with its own line alone."""
    site.settings.touch()
    site.program("sh", "exit 0")  # no packages
    migrates = site.folder / "migrates"
    site.program("alembic", f"touch {migrates}; exec sleep 600")
    site.variables |= {"REPO": str(repo.folder)}
    with subprocess.Popen(
        ["bash", "-c", f"{commands_of('deploy.md')}\nrelease HEAD"],
        env=os.environ | site.variables | {"PATH": f"{site.programs}:{os.environ['PATH']}"},
        process_group=0,
    ) as first:
        try:
            until(migrates.exists)
            for second in ("release HEAD", "deploy 1 2", "settings A=1"):
                done = site.bash(second)
                assert done.returncode == 1
                assert done.stderr.startswith("Another release, deploy or settings runs here."), (
                    done
                )
        finally:
            os.killpg(first.pid, signal.SIGKILL)
    until(lambda: site.bash("alone").returncode == 0)  # its commands have ended too


def test_a_release_that_python_cannot_import_changes_no_database(site: Site, repo: Repo) -> None:
    site.settings.touch()
    python = ".venv/bin/python"
    repo.write("dev/uv", f"mkdir -p .venv/bin; echo exit 7 > {python}; chmod +x {python}\n")
    repo.commit()
    site.variables |= {"REPO": str(repo.folder), "MIGRATE": f"touch {site.folder}/migrated"}
    assert site.bash("release HEAD").returncode == 7
    assert not (site.folder / "migrated").exists()
    assert not (site.folder / "release").exists()


def test_a_deploy_begins_with_a_process_that_is_out_already(site: Site) -> None:
    """The other one is alone: without it, nobody would serve."""
    site.settings.touch()
    site.release("exit 1")
    site.program("curl", "[[ $* == *csv* ]] || exit 7; printf 'app,1,0,UP,\\napp,2,0,DRAIN,\\n'")
    with site.process("1.pid"):
        done = site.bash("deploy 1 2")
    assert done.stderr.startswith("2 is not ready:\n"), done


def test_a_deploy_waits_a_short_time_for_websockets_and_reports_none_as_a_failure(
    site: Site,
) -> None:
    """HAProxy counts each open one, and a client keeps it for hours."""
    site.settings.touch()
    site.release("exit 1")
    site.program("curl", "[[ $* != *csv* ]] && echo drained || echo app,1,0,0,1,1,,UP,")
    waits = site.folder / "waits"
    site.program("timeout", f"echo $1 >> {waits}; exit 124")  # each wait is in vain
    with site.process("1.pid", PORT="1") as serving:
        done = site.bash("deploy 1")
        assert serving.wait(300) < 0
    for_connections, for_its_end, _ = map(int, waits.read_text().split())
    assert for_connections < for_its_end == 25
    assert ";csv" not in done.stderr


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("site")
def test_a_command_finds_the_files_of_the_repo_from_any_folder(page: Path) -> None:
    """A person pastes it where the last page has left them."""
    for line in lines_of(page):
        assert not re.search(r"(?:^|[\s\"'])deploy/", line), line


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("site")
def test_a_wait_that_ends_in_vain_prints_no_password(page: Path) -> None:
    """`wait_until` prints its words, so no URL may be one of them."""
    for line in lines_of(page):
        for words in re.findall(r"\bwait_until (.*)", line):
            shown = re.sub(r"^(?:ba)?sh -c '[^']*'", "", words)
            urls = r"\$\{?(\w*POSTGRES|\w*DIRECT|REPLICA|POOLED|NEW)\b"
            assert not re.search(urls, shown, re.IGNORECASE), line


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("site")
def test_postgres_logs_no_statement_with_a_password(page: Path) -> None:
    """It logs one that fails, as when a step is repeated, and one that takes 200 ms."""
    for line in lines_of(page):
        if re.search(r"PASSWORD :?'|CONNECTION '|SET primary_conninfo", line):
            assert line.strip().startswith("unlogged "), line


def test_the_log_is_told_before_a_statement_with_a_password(site: Site) -> None:
    site.program("psql", f'printf "%s\\n" "$@" > {site.folder}/asked')
    done = site.bash("unlogged URL -c \"ALTER ROLE app PASSWORD 'x'\"")
    assert (done.returncode, done.stderr) == (0, "")
    told, statement = (site.folder / "asked").read_text(encoding="utf-8").split("\n-c\n")[1:]
    assert "('log_min_duration_statement', '-1'), ('log_min_error_statement', 'panic')" in told
    assert statement == "ALTER ROLE app PASSWORD 'x'\n"


def test_postgres_does_not_restart_with_libraries_that_it_does_not_have(site: Site) -> None:
    conf = site.folder / "conf"
    conf.mkdir()
    (site.folder / "release/deploy").mkdir(parents=True)
    (site.folder / "release/deploy/postgres.conf").touch()
    site.program("psql", "true")
    site.program("restart", f"touch {site.folder}/restarted")
    names = {"POSTGRES": "x", "DIRECT": "x", "POSTGRES_CONF": str(conf)}
    done = site.step(commands_of("to-stage-2.md", "1."), RESTART_POSTGRES="restart", **names)
    assert done.returncode != 0
    assert not list(conf.iterdir())
    assert not (site.folder / "restarted").exists()


def test_a_pasted_section_stops_at_the_first_command_that_fails(site: Site) -> None:
    pasted = "settings A=1\ncat <<END | grep -q nothing\n$SITE\nEND\nsettings B=2\n"
    site.settings.touch()
    done = site.bash("step\necho $?", pasted)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert site.settings.read_text(encoding="utf-8") == "A='1'\n"


def exchange(
    site: Site,
    primary: str,
    module: str = "",
    replica: str = "postgresql://postgres@10.0.2.5:5432/app",
) -> subprocess.CompletedProcess[str]:
    return site.bash(
        f"{commands_of('replicas/failover.md')}\nexchange",
        POSTGRES_PLACE=primary,
        REPLICA_PLACE=NEW,
        REPLICA=replica,
        MODULE=module,
    )


def url(place: str, query: str = "") -> str:
    return f"postgresql://{place}/app{query}"


@pytest.mark.parametrize("user", ["", "postgres@", "postgres:p%40s@"])
@pytest.mark.parametrize("host", ["10.0.2.5:5432", "[2001:db8::5]:5432", "db.example"])
@pytest.mark.parametrize("query", ["", "?sslmode=verify-full&sslrootcert=/etc/ca.pem"])
def test_a_url_is_used_whatever_parts_it_has(site: Site, user: str, host: str, query: str) -> None:
    """Of a failover, and of an upgrade."""
    given = url(f"{user}{host}", query)
    migrations = "DATABASE_DIRECT_URL='postgresql://app:x@{}/app?sslmode=require'\n"
    site.ini.write_text(f"app = {NEW} connect_query='…'\n", encoding="utf-8")
    functions = commands_of("upgrade-postgres-functions.md")
    ways: tuple[Callable[[], subprocess.CompletedProcess[str]], ...] = (
        lambda: site.bash(f"{functions}\ndirect_to '{given}'"),
        lambda: exchange(site, OLD, replica=given),
    )
    for migrations_follow in ways:
        site.settings.write_text(migrations.format("10.0.1.5:5432"))
        with site.process():
            done = migrations_follow()
        assert done.returncode == 0, done.stderr
        assert site.settings.read_text() == migrations.format(host)
    done = site.bash(f"{functions}\nUPGRADE_PASSWORD=x\nas_upgrade '{given}'")
    assert done.stdout == url(f"upgrade:x@{host}", query) + "\n"
    [command] = [
        line
        for line in commands_of("upgrade-postgres.md", "1.").splitlines()
        if line.startswith("new_server=")
    ]
    done = site.bash(f'{command}\necho "$new_server"', NEW=given)
    assert done.stdout == f"postgresql://{user}{host}/postgres{query}\n"


def test_a_repeated_exchange_finishes_what_a_kill_has_left(site: Site) -> None:
    exchanged = f"app = {NEW} connect_query='…'\napp_replica = {OLD} connect_query='…'\n"
    site.ini.write_text(exchanged, encoding="utf-8")
    site.settings.write_text("DATABASE_DIRECT_URL='postgresql://app@10.0.1.5:5432/app'\n")
    with site.process() as pooler:
        done = exchange(site, OLD)
        assert (done.returncode, done.stderr) == (0, "")
        assert pooler.wait(10) == -signal.SIGHUP
    assert site.ini.read_text(encoding="utf-8") == exchanged
    assert site.settings.read_text() == "DATABASE_DIRECT_URL='postgresql://app@10.0.2.5:5432/app'\n"


def test_an_exchange_with_a_place_that_pgbouncer_does_not_have_fails(site: Site) -> None:
    before = f"app = {OLD} connect_query='…'\n"
    site.ini.write_text(before, encoding="utf-8")
    site.settings.touch()
    with site.process() as pooler:
        done = exchange(site, OLD.replace("10.0.1.5", "primary"))
        assert done.returncode != 0
        assert "POSTGRES_PLACE" in done.stderr
        assert pooler.poll() is None
    assert site.ini.read_text(encoding="utf-8") == before


COMMON = "host=10.0.7.5 port=5432 dbname=app"
BOTH_SERVERS = f"""\
app = {COMMON} x
app_read = {COMMON} x
billing_2-app = {{0}} x
billing_2-app_read = {{0}} x
"""
BOTH_DIRECT = """\
DATABASE_DIRECT_URL='postgresql://app@10.0.7.5:5432/app'
MODULE_BILLING_2_DATABASE_DIRECT_URL='postgresql://app@{0}:5432/app'
"""


@pytest.mark.parametrize("page", ["failover", "upgrade"])
def test_a_server_of_a_module_changes_places_and_the_common_one_stays(
    site: Site, page: str, tmp_path: Path
) -> None:
    """Also for an operator whose language is Turkish: there, the capital letter of i is İ."""
    turkish = tmp_path / "locales/tr_TR.UTF-8"
    turkish.parent.mkdir()
    if not subprocess.run(["localedef", "-i", "tr_TR", "-f", "UTF-8", turkish]).returncode:
        site.variables |= {"LOCPATH": str(turkish.parent), "LC_ALL": turkish.name}
    site.ini.write_text(BOTH_SERVERS.format(OLD), encoding="utf-8")
    site.settings.write_text(BOTH_DIRECT.format("10.0.1.5"))
    with site.process():
        if page == "failover":
            done = exchange(site, OLD, "billing_2")
        else:
            site.program("psql", '[[ "$*" == *"-qo /dev/null"* ]] && cat > /dev/null || echo t')
            done = site.step(
                "cross POSTGRES NEW\ndirect_to postgresql://app@10.0.2.5:5432/app",
                commands_of("upgrade-postgres-functions.md"),
                POSTGRES_PLACE=OLD,
                NEW_PLACE=NEW,
                MODULE="billing_2",
                **dict.fromkeys(("POSTGRES", "NEW", "UPGRADE_PASSWORD"), "x"),
            )
    assert (done.returncode, done.stderr) == (0, "")
    assert site.ini.read_text(encoding="utf-8") == BOTH_SERVERS.format(NEW)
    assert site.settings.read_text() == BOTH_DIRECT.format("10.0.2.5")


def test_the_common_server_is_not_taken_for_that_of_a_module(site: Site) -> None:
    before = BOTH_SERVERS.format(OLD)
    site.ini.write_text(before, encoding="utf-8")
    site.settings.touch()
    for primary, module in ((COMMON, "billing_2"), (OLD, "")):
        with site.process() as pooler:
            done = exchange(site, primary, module)
            assert done.returncode != 0
            assert f"`{'billing_2-' if module else ''}app` leads neither" in done.stderr
            assert pooler.poll() is None
        assert site.ini.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("section", "part"), [("1.", "check"), ("2.", "do")])
def test_a_failover_of_a_module_cannot_stop_the_common_server(
    site: Site, section: str, part: str
) -> None:
    """Its variables are still exported."""
    site.program("psql", '[[ "$*" == *"count(*)"* ]] && echo 0 || echo t')
    site.program("stop", f"touch {site.folder}/stopped")
    site.program("pg_controldata", CONTROLDATA)
    site.ini.write_text(f"orders-app = {OLD} x\n", encoding="utf-8")
    own = {"OWN_POSTGRES": "x", "OWN_DIRECT": "x", "OWN_PLACE": OLD}
    common = {"POSTGRES": "y", "REPLICA": "z", "REPLICA_PLACE": NEW, "STOP_POSTGRES": "stop"}
    pages = ("module_databases/its-server.md", "2."), ("replicas/failover.md",)
    functions = "\n".join(commands_of(*page) for page in pages)
    with site.process():
        done = site.step(
            commands_of("replicas/failover.md", section, part),
            f"{functions}\nexport POSTGRES_DATA=z",
            **own,
            **common,
        )
    assert "STOP_POSTGRES: unbound variable" in done.stderr, done
    assert not (site.folder / "stopped").exists()


@pytest.mark.parametrize(
    ("primary", "password", "deployed"), [(OLD, "a", True), (NEW, "a", False), (OLD, "b", False)]
)
def test_a_module_gets_names_that_lead_to_its_own_server_or_is_not_deployed(
    site: Site, primary: str, password: str, deployed: bool
) -> None:
    """NEW: the common server's place is written otherwise than in pgbouncer.ini."""
    before = f"app = {OLD} x\napp_read = {OLD} x\norders-app_replica = z\n"
    site.ini.write_text(before)
    site.settings.touch()
    # Each name of PgBouncer answers with its place.
    site.program(
        "psql",
        f"""case $1,$* in
pooled/*) place=$(grep "^${{1#pooled/}} = " {site.ini}) && echo "${{place#* = }}" ;;
*identifier*) echo '{COMMON} x' ;;
*SELECT*) echo app ;;
*) cat > /dev/null ;;
esac""",
    )
    names = {"POSTGRES": "x", "OWN_POSTGRES": "x", "POOLED": "pooled", "OWN_PLACE": COMMON}
    urls = {"DIRECT": "postgresql://app:a@x/app", "OWN_DIRECT": f"postgresql://app:{password}@y/a"}
    for _ in range(2):
        with site.process():
            done = site.step(
                commands_of("module_databases/its-server.md", "1."),
                POSTGRES_PLACE=primary,
                **names,
                **urls,
            )
        assert ("deployed" in done.stdout) == deployed == (done.returncode == 0), done
        assert deployed or site.ini.read_text() == before
    assert ("pooled/orders-app_read" in site.settings.read_text()) == deployed
    if deployed:
        names_of = [line.split(" = ")[0] for line in site.ini.read_text().splitlines()]
        assert sorted(names_of) == [
            *("app", "app_read"),
            *("orders-app", "orders-app_read", "orders-app_replica"),
        ]


@pytest.mark.parametrize(
    "settings",
    [
        "FILES_S3_REGION=eu-central-1 FILES_BUCKET=shop-files-2",
        "FILES_BUCKET=shop-files-2 FILES_S3_REGION=eu-central-1",
    ],
)
def test_the_settings_of_the_old_bucket_are_kept_also_when_a_step_is_killed_and_repeated(
    site: Site, settings: str
) -> None:
    before = "FILES_S3_REGION='eu-central-1'\nFILES_BUCKET='shop-files'\nSECRET_KEY='new'\n"
    site.settings.write_text(before)
    old = site.folder / "app.env.old-bucket"
    old.write_text("SECRET_KEY='of an earlier loss'\n")
    commands = commands_of("s3/loss.md", "2.", without="rclone")

    killed = """echo() {
    if [ -e "$SITE/once" ]; then kill -9 "$BASHPID"; fi
    touch "$SITE/once"
    builtin echo "$@"
}"""
    assert site.step(commands, killed, NEW_S3_SETTINGS=settings).returncode == 128 + signal.SIGKILL
    assert site.settings.read_text() == before
    for _ in range(2):
        assert site.step(commands, NEW_S3_SETTINGS=settings).stdout == "deployed\n"
        assert old.read_text() == before
    assert "FILES_BUCKET='shop-files-2'\n" in site.settings.read_text()


SECOND_POOLER = {
    "POOLED": "postgresql://app@10.0.1.5:6432",
    "POOLED_BY_NAME": "postgresql://app@127.0.0.1:6433",
}


@pytest.mark.parametrize(
    ("page", "before", "names"),
    [
        ("cache/upgrade-valkey.md", "CACHE_URL='redis://old'\n", {"new": "redis://new"}),
        (
            "s3/loss.md",
            "FILES_BUCKET='old'\n",
            {"NEW_S3_SETTINGS": "FILES_S3_REGION=here FILES_BUCKET=2"},
        ),
        (
            "copies/loss-of-a-zone.md",
            "DATABASE_URL='postgresql://app:x@10.0.1.5:6432/app'\n",
            SECOND_POOLER,
        ),
    ],
)
def test_a_way_back_after_months_keeps_all_other_settings(
    site: Site, page: str, before: str, names: dict[str, str]
) -> None:
    """An older SESSION_STORE or module's URL would lose what was written since."""
    other = "OTHER_URL='postgresql://app@127.0.0.1:6433/app'\n"
    site.settings.write_text(f"{other}{before}SESSION_STORE='postgres'\n")
    commands = {
        part: commands_of(page, "2.", part, without=("rclone", "at_cache"))
        for part in ("do", "back")
    }
    assert site.step(commands["do"], **names).returncode == 0
    assert before not in site.settings.read_text()
    site.bash("settings SESSION_STORE=redis")
    done = site.step(commands["back"], **names)
    assert (done.returncode, done.stderr) == (0, "")
    lines = site.settings.read_text().splitlines(keepends=True)
    assert sorted(lines) == sorted([other, before, "SESSION_STORE='redis'\n"])


def test_a_repeated_second_step_of_a_rotation_does_not_delete_the_keys(site: Site) -> None:
    before = "SECRET_KEY='new'\nDATABASE_URL='postgresql://app:x@host/app'\n"
    site.settings.write_text(before)
    site.variables |= {"NEW_ROLE": "app_2", "NEW_PASSWORD": "secret"}
    done = site.step(commands_of("rotation.md", "2."))
    assert done.returncode != 0
    assert "deployed" not in done.stdout
    assert site.settings.read_text() == before


@pytest.mark.parametrize("folder", ["", "pooling/", "cache/", "module_databases/"])
def test_an_old_secret_is_refused_only_when_no_process_uses_it(site: Site, folder: str) -> None:
    """Else each login and each write would be a 503."""
    last = commands_of(f"{folder}rotation.md", "3.")
    for program in ("psql", "sed", "python"):
        site.program(program, f"touch {site.folder}/changed")
    site.settings.touch()
    (site.folder / "release").mkdir()
    old = {"DATABASE_READ_URL": "postgresql://app:x@h/app", "CACHE_URL": "redis://:old@h:1/0"}
    names = {"OLD_ROLE": "app", "NEW_REDIS_PASSWORD": "new", "REDIS": "CACHE_URL"}
    with site.copies(**old):
        done = site.step(last, "each_redis() { python; }", **names)
    assert done.returncode != 0
    assert "do step 2 of rotation.md first" in done.stderr
    assert not (site.folder / "changed").exists()


@pytest.mark.parametrize("folder", ["", "pooling/", "module_databases/"])
def test_an_old_role_is_not_refused_while_a_process_cannot_be_asked(
    site: Site, folder: str
) -> None:
    """It has ended, runs as another user or in a container. The next step would be in vain."""
    for program in ("psql", "sed"):
        site.program(program, f"touch {site.folder}/changed")
    done = site.step(commands_of(f"{folder}rotation.md", "3."), OLD_ROLE="app")
    assert done.returncode != 0
    assert not (site.folder / "changed").exists()


def test_a_rotation_that_has_begun_does_not_begin_again(site: Site) -> None:
    """The processes may know the first new key only."""
    before = "SECRET_KEY='old'\nSECRET_KEY_PREVIOUS='new'\n"
    site.settings.write_text(before)
    site.program("psql", "echo app")
    names = {"NEW_ROLE": "app_2", "NEW_PASSWORD": "x", "DIRECT": "x", "POSTGRES": "x"}
    done = site.step(commands_of("rotation.md", "1."), **names)
    assert done.returncode != 0
    assert done.stderr.startswith("A rotation has begun")
    assert site.settings.read_text() == before


@pytest.mark.parametrize(
    ("page", "section", "failing"),
    [
        ("rotation.md", "1.", "openssl"),
        ("cache/add-the-cache.md", "2.", "python"),
        ("cache/upgrade-valkey.md", "2.", "python"),
        ("redis_sessions/move-the-sessions.md", "2.", "python"),
    ],
)
def test_a_secret_that_cannot_be_made_is_not_deployed(
    site: Site, page: str, section: str, failing: str
) -> None:
    before = "SECRET_KEY='odd'\nCACHE_URL='redis://old'\n"
    site.settings.write_text(before)
    (site.folder / "release").mkdir()
    site.program(failing, "exit 1")
    site.program("psql", "echo app")
    functions = commands_of(page) if page == "cache/upgrade-valkey.md" else ""
    names = ("CACHE", "NEW_CACHE", "SESSIONS")
    places = {f"{name}_{end}": "x" for name in names for end in ("HOST", "PORT", "PASSWORD")}
    site.variables |= {
        **places,
        "POSTGRES": "x",
        "DIRECT": "x",
        "NEW_ROLE": "x",
        "NEW_PASSWORD": "x",
    }

    done = site.step(commands_of(page, section), functions)

    assert done.returncode != 0
    assert "deployed" not in done.stdout
    assert site.settings.read_text() == before


def test_the_users_of_pgbouncer_stay_when_postgres_cannot_be_asked(site: Site) -> None:
    users = site.folder / "userlist.txt"
    users.write_text('"app" "SCRAM-SHA-256$…"\n', encoding="utf-8")
    site.program("psql", "exit 2")
    done = site.step(
        commands_of("pooling/rotation.md", "1."), POSTGRES="x", OLD_ROLE="app", NEW_ROLE="app_2"
    )
    assert done.returncode != 0
    assert users.read_text(encoding="utf-8") == '"app" "SCRAM-SHA-256$…"\n'


def test_a_rotation_keeps_the_users_of_other_programs_in_pgbouncer(site: Site) -> None:
    users = site.folder / "userlist.txt"
    users.write_text('"app" "old"\n"app_read" "reports"\n', encoding="utf-8")
    site.ini.write_text("stats_users = app, grafana\n", encoding="utf-8")
    site.program("psql", """printf '"app" "old"\\n"app_2" "new"\\n'""")
    step = commands_of("pooling/rotation.md", "1.")
    for _ in range(2):
        with site.process():
            done = site.step(step, POSTGRES="x", OLD_ROLE="app", NEW_ROLE="app_2")
        assert (done.returncode, done.stderr) == (0, "")
        lines = users.read_text(encoding="utf-8").splitlines()
        assert lines == ['"app" "old"', '"app_2" "new"', '"app_read" "reports"']
        assert site.ini.read_text(encoding="utf-8") == "stats_users = app, grafana, app_2\n"
    for _ in range(2):
        with site.process(), site.copies():
            end = commands_of("pooling/rotation.md", "3.")
            done = site.step(end, OLD_ROLE="app", NEW_ROLE="app_2")
        assert (done.returncode, done.stderr) == (0, "")
        assert site.ini.read_text(encoding="utf-8") == "stats_users = grafana, app_2\n"


def test_the_replicas_way_to_the_primary_may_hold_quotes(site: Site) -> None:
    """`pg_basebackup` writes them round a host with a hyphen, an IPv6 address or a file."""
    way = "user=replicator password=new host='db-1.example'"
    literal = way.replace("'", "''")
    asked = f"""*quote_literal*) echo "'{literal}'" ;; *regexp_replace*) echo "{way}" ;;"""
    site.program("psql", f'case "$*" in {asked} *) echo "$*" ;; esac')
    page = commands_of("replicas/rotation.md", "1.")
    names = {"POSTGRES": "x", "REPLICA": "x", "NEW_REPLICATOR_PASSWORD": "new"}

    # What `unlogged` asks is not shown, so that no password is.
    done = site.step(page, 'unlogged() { psql "$@"; }', **names)

    assert done.returncode == 0, done.stderr
    assert f"-c ALTER SYSTEM SET primary_conninfo = '{literal}' -c" in done.stdout


def test_the_way_back_of_a_second_replica_leaves_the_first_one_its_login(site: Site) -> None:
    hba = site.folder / "pg_hba.conf"
    first = "host replication replicator 10.0.1.5/32 scram-sha-256\n"
    second = "host replication replicator 2001:db8::5/128 scram-sha-256\n"
    hba.write_text(first, encoding="utf-8")
    site.program("psql", f'echo "$*" >> {site.folder}/asked')
    add = commands_of(
        "replicas/add-a-replica.md", "1.", without=("cp ", "pg_base", "grep", "sed", "kill")
    )
    back = commands_of("replicas/add-a-replica.md", "1.", "back")
    replica = {"REPLICA_DATA": f"{site.folder}/data", "POSTGRES_HBA": str(hba), "POSTGRES": "x"}
    replica |= {"START_REPLICA": "true", "STOP_REPLICA": "true", "REPLICATOR_PASSWORD": "x"}
    done = site.step(add, REPLICA_ADDRESS="2001:db8::5", **replica)
    assert (done.returncode, hba.read_text(encoding="utf-8")) == (0, first + second), done.stderr
    done = site.step(back, REPLICA_ADDRESS="2001:db8::5", **replica)
    assert (done.returncode, hba.read_text(encoding="utf-8")) == (0, first), done.stderr
    assert "DROP ROLE" not in (site.folder / "asked").read_text(encoding="utf-8")
    done = site.step(back, REPLICA_ADDRESS="10.0.1.5", **replica)
    assert (done.returncode, hba.read_text(encoding="utf-8")) == (0, ""), done.stderr
    assert "DROP ROLE" in (site.folder / "asked").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "section", "line"),
    [
        ("cache/add-the-cache.md", "2.", "the cache answers"),
        ("replicas/add-a-replica.md", "3.", "a replica is in rotation"),
    ],
)
def test_a_line_of_the_log_from_before_the_start_proves_nothing(
    site: Site, page: str, section: str, line: str
) -> None:
    """The second time that somebody adds it, for example after the way back."""
    site.program("timeout", 'exec /usr/bin/timeout 1 "${@:2}"')
    check = commands_of(page, section, "check")
    for since, passes in (("", False), (f"{line}\n", True)):
        for port in "12":
            log = f"Started server process [7]\n{line}\nStarted server process [8]\n{since}"
            (site.folder / f"{port}.log").write_text(log, encoding="utf-8")
        assert (site.step(check).returncode == 0) is passes


def test_a_second_replica_has_its_own_name_and_is_checked_by_itself(site: Site) -> None:
    first = "app_replica = host=10.0.1.5 port=5432 dbname=app connect_query='SET jit = off'\n"
    site.ini.write_text(f"[databases]\n{first}", encoding="utf-8")
    page = "replicas/add-a-replica.md"
    aliases = commands_of(page, "1.").partition("\nname=")
    second = {"REPLICA_NAME": "app_replica2", "REPLICA_PLACE": "host=/run port=5433 dbname=shop"}
    for _ in range(2):
        with site.process():
            done = site.step("".join(aliases[1:]), **second)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert site.ini.read_text(encoding="utf-8") == (
            f"[databases]\n{first}"
            "app_replica2 = host=/run port=5433 dbname=shop connect_query='SET jit = off'\n"
        )

    site.program(
        "psql", "case $* in *in_recovery*) echo t ;; *10.0.1.6*) ;; *) echo streaming ;; esac"
    )
    site.program("timeout", 'exec /usr/bin/timeout 1 "${@:2}"')
    for address, status in (("10.0.1.5", 0), ("10.0.1.6", 1)):
        found = site.step(commands_of(page, "1.", "check"), POSTGRES="x", REPLICA_ADDRESS=address)
        assert found.returncode == status, found


def checks() -> Iterator[tuple[str, str, str]]:
    """The name of each block of a check, the functions of its page, and its commands."""
    sys.path.insert(0, str(LIVE_CLIMB))
    blocks = importlib.import_module("runbook").blocks
    sys.path.remove(str(LIVE_CLIMB))
    for page in ALL_PAGES:
        found = blocks(page)
        functions = "\n".join(one.commands for one in found if not one.section)
        for one in found:
            if one.part == "check" and one.page == page.name and "deploy " not in one.commands:
                # The processes of the app are not what these tests end.
                lines = [line for line in one.commands.splitlines() if "/proc/" not in line]
                yield one.name, functions, "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("functions", "commands"),
    [pytest.param(*one, id=name) for name, *one in checks()],
)
def test_a_check_fails_when_nothing_answers(site: Site, functions: str, commands: str) -> None:
    for program in NOT_ANSWERING:
        site.program(program, "exit 1")
    site.program("sleep", "exec /bin/sleep 0.1")
    site.program("timeout", 'exec /usr/bin/timeout 1 "${@:2}"')
    site.settings.touch()
    (site.folder / "release/.venv").mkdir(parents=True)
    names = set(re.findall(r"\$\{?([A-Z][A-Z_0-9]+)", functions + commands)) - {"SECONDS", "STEP"}
    site.variables = dict.fromkeys(names | {"BALANCER", "REPO"}, "x") | site.variables
    done = site.step(commands, functions)
    assert done.returncode not in (0, 127), done
    assert "unbound variable" not in done.stderr


def test_a_redis_that_does_not_answer_is_not_one_without_old_passwords(site: Site) -> None:
    names = {"NEW_REDIS_PASSWORD": "x", "REDIS": "CACHE_URL"}
    functions = commands_of("cache/rotation.md")
    site.settings.touch()
    (site.folder / "release").mkdir()
    with site.copies(CACHE_URL="redis://:x@h:1/0"):
        for users, status in (("user default on #1", 0), ("user default on #1 #2", 1)):
            site.program("python", f"case $3 in ACL) echo '{users}' ;; esac")
            done = site.step(commands_of("cache/rotation.md", "3."), functions, **names)
            assert (done.returncode, done.stderr) == (status, "")
        site.program("python", "[ $4 = SETUSER ]")
        done = site.step(commands_of("cache/rotation.md", "3."), functions, **names)
        assert done.returncode != 0


@pytest.mark.parametrize(
    ("page", "section", "copied", "status"),
    [
        ("redis_sessions/move-the-sessions.md", "3.", 0, 0),
        ("redis_sessions/move-the-sessions.md", "3.", 10, 1),
        ("redis_sessions/move-the-sessions.md", "4.", 10, 1),
    ],
)
def test_ten_sessions_that_were_still_missing_are_not_taken_for_none(
    site: Site, page: str, section: str, copied: int, status: int
) -> None:
    site.settings.touch()
    site.release(f"echo 'Redis holds all 10 sessions: {copied} copied now, 0 ended there.'")
    assert site.step(commands_of(page, section, "check")).returncode == status


@pytest.mark.parametrize(
    ("page", "setting", "name", "right"),
    [
        ("cache/add-the-cache.md", "CACHE_URL", "CACHE", "allkeys-lfu"),
        ("redis_sessions/move-the-sessions.md", "SESSION_REDIS_URL", "SESSIONS", "noeviction"),
    ],
)
def test_a_check_asks_the_new_redis_also_when_the_app_knows_another_one(
    site: Site, page: str, setting: str, name: str, right: str
) -> None:
    """As it does after a way back."""
    site.settings.write_text(f"{setting}='redis://old'\n")
    site.release(f'exec {sys.executable} "$@"')
    (site.folder / "release/redis.py").write_text(
        "class from_url(str): info = lambda self, part: {'maxmemory_policy': self}"
    )
    server = {f"{name}_HOST": right, f"{name}_PORT": "1", f"{name}_PASSWORD": "x"}
    done = site.step(commands_of(page, "1.", "check"), **server)
    assert (done.returncode, done.stdout) == (0, f"redis://:x@{right}:1/0\n"), done


def test_a_second_move_of_the_files_checks_its_own_bucket(site: Site) -> None:
    site.settings.write_text("FILES_STORE='folder'\nFILES_BUCKET='first'\nFILES_ROWS='old'\n")
    site.release('echo "0 orphan(s) found in $FILES_BUCKET at $FILES_STORE: $FILES_ROWS"')
    done = site.step(
        commands_of("s3/move-the-files.md", "1.", "check"),
        S3_SETTINGS="FILES_BUCKET=second FILES_S3_REGION=here",
        FILES_ROWS="SELECT 1",
    )
    assert done.stdout == "0 orphan(s) found in second at read-both: SELECT 1\n", done


def test_two_servers_of_sessions_that_do_not_answer_are_not_at_the_same_position(
    site: Site,
) -> None:
    functions = commands_of("redis_sessions/upgrade-valkey.md")
    site.variables |= {"SESSIONS_PASSWORD": "x"}
    site.program("redis-cli", "exit 1")
    commands = f"{functions}\nsame_position a 1 b 2"
    assert site.bash(commands).returncode != 0
    site.program("redis-cli", "echo master_repl_offset:7")
    assert site.bash(commands).returncode == 0


def test_a_backup_needs_no_options_and_a_lost_server_no_moment(site: Site) -> None:
    data = site.folder / "data"
    for name in ("barman-cloud-backup", "barman-cloud-restore", "psql"):
        site.program(name, f'printf "%s\\n" "$*" >> {site.folder}/called')
    site.program("barman-cloud-backup-list", "echo 20260131T120000")
    site.variables |= {"BACKUP": "s3://shop-backups/postgres", "PGDATA": str(data)}
    site.variables |= dict.fromkeys(("RESTART_POSTGRES", "STOP_POSTGRES", "START_POSTGRES"), "true")
    for section in ("1.", "3.", "4."):
        done = site.step(commands_of("backup.md", section))
        assert (done.returncode, done.stderr) == (0, ""), section
    recovery = (data / "postgresql.auto.conf").read_text()
    assert "barman-cloud-wal-restore  s3://shop-backups/postgres main %f %p " in recovery
    assert "recovery_target_time = ''\nrecovery_target_timeline = 'latest'\n" in recovery
    # A replica of this server copies the file, so it would obey them too.
    written = set(re.findall(r"^(\w+) = ", recovery, re.MULTILINE)) - {"recovery_target_action"}
    [reset] = re.findall(r"for name in (.*?); do", commands_of("backup.md", "3.", "check"))
    assert written == set(reset.split())


def test_a_nightly_backup_that_fails_is_a_failure_of_its_cron_job(site: Site) -> None:
    blocks = importlib.import_module("runbook").blocks(PAGES / "backup.md")
    [nightly] = [one.commands for one in blocks if "backup-delete" in one.commands]
    site.program("barman-cloud-backup", "exit 2")
    site.program("barman-cloud-backup-delete", "echo deleted")
    done = site.bash(nightly, BACKUP="s3://shop-backups/postgres")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(("barman", "postgres"), [(0, 0), (1, 1), (2, 255), (4, 255)])
def test_a_bucket_that_does_not_answer_is_not_taken_for_the_end_of_the_wal(
    site: Site, barman: int, postgres: int
) -> None:
    """Postgres takes each code up to 125 for "no more WAL", and would begin without the rest."""
    data = site.folder / "data"
    for name in ("barman-cloud-restore", "psql"):
        site.program(name, "true")
    site.program("barman-cloud-wal-restore", f"exit {barman}")
    site.variables |= {"BACKUP": "s3://shop-backups/postgres", "PGDATA": str(data), "ID": "1"}
    site.variables |= dict.fromkeys(("STOP_POSTGRES", "START_POSTGRES"), "true")
    assert site.step(commands_of("backup.md", "3.")).returncode == 0
    [command] = re.findall(
        "^restore_command = '(.*)'$", (data / "postgresql.auto.conf").read_text(), re.M
    )
    done = site.bash(f"sh -c {shlex.quote(command.replace('%f', 'F').replace('%p', 'P'))}")
    assert (done.returncode, done.stderr) == (postgres, "")


def test_a_planned_failover_with_a_place_that_pgbouncer_does_not_have_pauses_nobody(
    site: Site,
) -> None:
    site.ini.write_text(f"app = {OLD} connect_query='…'\n", encoding="utf-8")
    site.program("psql", "echo t")
    places = {"POSTGRES_PLACE": OLD.replace("10.0.1.5", "primary"), "REPLICA_PLACE": NEW}
    servers = {"POSTGRES": "x", "REPLICA": "y", "STOP_POSTGRES": "false", "POSTGRES_DATA": "z"}
    functions = commands_of("replicas/failover.md")
    with site.process() as pooler:
        done = site.step(
            commands_of("replicas/failover.md", "1.", "check"), functions, **places, **servers
        )
        assert done.returncode != 0
        assert "POSTGRES_PLACE" in done.stderr
        assert pooler.poll() is None


# As PgBouncer, it goes on after both signals.
POOLER = """
trap 'echo pause >> log' USR1; trap 'echo resume >> log' USR2; echo ready > log
while :; do sleep 0.05; done
"""


def test_a_planned_failover_that_cannot_read_the_old_primary_stops_and_pauses_nothing(
    site: Site,
) -> None:
    """On Debian, pg_controldata is not on PATH, and only the user postgres may read the folder."""
    site.ini.write_text(f"app = {OLD} connect_query='…'\n", encoding="utf-8")
    site.program("psql", '[[ "$*" == *"count(*)"* ]] && echo 0 || echo t')
    site.program("pg_controldata", "exit 127")
    site.program("stop-postgres", f"touch {site.folder}/stopped")
    functions = commands_of("replicas/failover.md")
    servers = {"POSTGRES": "x", "REPLICA": "y", "POSTGRES_DATA": "z"}
    places = {"POSTGRES_PLACE": OLD, "REPLICA_PLACE": NEW, "STOP_POSTGRES": "stop-postgres"}
    with site.process() as pooler:
        commands = commands_of("replicas/failover.md", "1.", "check")
        assert site.step(commands, functions, **servers, **places).returncode != 0
        assert pooler.poll() is None
    assert not (site.folder / "stopped").exists()


@pytest.mark.parametrize("failing", ["a report does not end", "the primary does not stop"])
def test_a_planned_failover_that_fails_lets_clients_go_on(site: Site, failing: str) -> None:
    site.ini.write_text(f"app = {OLD} connect_query='…'\n", encoding="utf-8")
    connections = int(failing == "a report does not end")
    site.program("psql", f'[[ "$*" == *"count(*)"* ]] && echo {connections} || echo t')
    site.program("timeout", 'exec /usr/bin/timeout 1 "${@:2}"')
    site.program("pg_controldata", CONTROLDATA)
    servers = {"POSTGRES": "x", "REPLICA": "y", "STOP_POSTGRES": "false", "POSTGRES_DATA": "z"}
    log = site.folder / "log"
    with subprocess.Popen(["bash", "-c", POOLER], cwd=site.folder) as pooler:
        try:
            (site.folder / "pid").write_text(str(pooler.pid), encoding="utf-8")
            until(lambda: log.exists() and log.read_text() == "ready\n")
            done = site.step(
                commands_of("replicas/failover.md", "1.", "check"),
                commands_of("replicas/failover.md"),
                **servers,
                POSTGRES_PLACE=OLD,
                REPLICA_PLACE=NEW,
            )
            assert done.returncode != 0
            until(lambda: log.read_text() == "ready\npause\nresume\n")
        finally:
            pooler.kill()


def test_clients_stay_where_they_are_when_the_replica_cannot_be_asked_to_take_over(
    site: Site,
) -> None:
    before = f"app = {OLD} connect_query='…'\n"
    site.ini.write_text(before, encoding="utf-8")
    site.program("psql", "exit 2")
    servers = {"POSTGRES_PLACE": OLD, "REPLICA_PLACE": NEW, "REPLICA": "y", "STOP_POSTGRES": "true"}
    functions = commands_of("replicas/failover.md")
    with site.process() as pooler:
        done = site.step(commands_of("replicas/failover.md", "2."), functions, **servers)
        assert done.returncode != 0
        assert pooler.poll() is None
    assert site.ini.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (
            "rmgr: Transaction desc: COMMIT 12:00\npg_waldump: error: error in WAL record at 0/1",
            " COMMIT ",
        ),
        ("pg_waldump: error: could not find a valid record after 0/1516730", "Nothing is lost."),
        ('pg_waldump: error: invalid WAL location: ""', None),
        ('pg_waldump: error: could not find file "000000010000000500000005"', None),
    ],
)
def test_wal_that_cannot_be_read_is_not_taken_for_nothing_lost(
    site: Site, said: str, answer: str | None
) -> None:
    (site.folder / "pg_wal").mkdir()
    (site.folder / "pg_wal/000000010000000000000001").touch()
    (site.folder / "failover.lsn").write_text("0/1\n")
    site.program("pg_waldump", f"cat <<'END'\n{said}\nEND\nexit 1")
    lost = commands_of("replicas/failover.md", "2.", "check", without=("wait_until", "\n"))
    done = site.step(lost, POSTGRES_DATA=str(site.folder))
    assert (done.returncode == 0) == (answer is not None), done
    assert answer is None or answer in done.stdout
    assert answer == "Nothing is lost." or "Nothing is lost." not in done.stdout


def test_an_upgrade_with_a_place_that_pgbouncer_does_not_have_changes_nothing(site: Site) -> None:
    site.ini.write_text(f"app = {OLD} connect_query='…'\n", encoding="utf-8")
    site.program("psql", f"echo t >> {site.folder}/asked")
    places = {"POSTGRES_PLACE": OLD.replace("10.0.1.5", "primary"), "NEW_PLACE": NEW}
    functions = f'{commands_of("upgrade-postgres-functions.md")}\npaused() (set -e; "$@")'
    done = site.step("paused cross POSTGRES NEW", functions, POSTGRES="x", NEW="y", **places)
    assert done.returncode != 0
    assert "POSTGRES_PLACE" in done.stderr
    assert not (site.folder / "asked").exists()


def test_a_repeated_step_gives_pgbouncer_each_name_of_a_module_once(site: Site) -> None:
    site.ini.write_text(f"app = {OLD}\napp_read = {OLD}\n", encoding="utf-8")
    site.settings.touch()
    # The second psql of the pipe must read: else it may be gone before the first one writes.
    site.program("psql", '[[ "$*" == *SELECT* ]] && echo app || cat > /dev/null')
    servers = dict.fromkeys(("DIRECT", "POSTGRES", "OWN_POSTGRES", "OWN_DIRECT", "POOLED"), "x")
    for _ in range(2):
        with site.process():
            done = site.step(commands_of("module_databases/move-by-pausing.md", "1."), **servers)
        assert (done.returncode, done.stderr) == (0, "")
        names = [line.split(" = ")[0] for line in site.ini.read_text().splitlines()]
        assert names == ["app", "orders-app", "app_read", "orders-app_read"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("orders: 2 of 2 tables copied, 0.0 MB and 0.01 s behind", 1),  # after `moves back`
        ("orders: neither database takes writes. Run cut or back again.", 1),
        ("orders: the new database takes the writes, and the old one is 0.01 s behind.", 0),
        ("orders: has its own database, and there is no way back.", 0),
    ],
)
def test_no_copy_stops_following_before_the_new_database_takes_the_writes(
    site: Site, said: str, status: int
) -> None:
    before = "MODULE_ORDERS_DATABASE_FOLLOW='true'\n"
    site.settings.write_text(before)
    site.release(f"echo '{said}'")
    page = "module_databases/move-a-module.md"
    names = {"POSTGRES": "x", "OWN_POSTGRES": "y", "OWN_DIRECT": "z"}
    done = site.step(commands_of(page, "4."), commands_of(page), **names)
    assert done.returncode == status, done
    assert ("deployed" in done.stdout) == (status == 0) == (site.settings.read_text() != before)


def test_a_module_whose_url_has_another_password_is_not_led_through_pgbouncer(site: Site) -> None:
    """PgBouncer has one password, and the new server gets it."""
    before = f"app = {OLD} x\n"
    site.ini.write_text(before)
    site.program("psql", f"touch {site.folder}/asked")
    urls = {"DIRECT": "postgresql://app:a@x/app", "OWN_DIRECT": "postgresql://app:b@y/app"}
    done = site.step(commands_of("module_databases/move-by-pausing.md", "1."), **urls)
    assert "OWN_DIRECT" in done.stderr
    assert "unbound" not in done.stderr
    assert not (site.folder / "asked").exists()
    assert site.ini.read_text() == before


def test_a_hand_over_with_places_that_pgbouncer_does_not_have_pauses_nobody(site: Site) -> None:
    site.ini.write_text(f"orders-app = {OLD} connect_query='…'\n", encoding="utf-8")
    places = {"POSTGRES_PLACE": OLD.replace("10.0.1.5", "primary"), "OWN_PLACE": NEW}
    functions = commands_of("module_databases/move-by-pausing.md")
    with site.process() as pooler:
        done = site.step(
            "switch cut POSTGRES_PLACE OWN_PLACE",
            functions,
            POSTGRES="x",
            OWN_POSTGRES="y",
            **places,
        )
        assert done.returncode != 0
        assert "POSTGRES_PLACE" in done.stderr
        assert pooler.poll() is None


def test_the_databases_of_modules_use_the_name_of_two_poolers_too(site: Site) -> None:
    """A module that kept the address of one PgBouncer would be lost with it."""
    one, name = SECOND_POOLER.values()
    own = "MODULE_ORDERS_2_DATABASE_REPLICA_URLS='{0}/orders-app,{0}/orders-app_2'\n"
    before = own.format(one) + "MODULE_ORDERS_2_DATABASE_DIRECT_URL='postgresql://app@10.0.3.5/a'\n"
    site.settings.write_text(before)
    for _ in range(2):
        site.step(commands_of("copies/loss-of-a-zone.md", "2."), **SECOND_POOLER)
    assert site.settings.read_text() == before.replace(one, name)


def test_the_page_of_lost_files_names_the_policy_that_refuses_its_copies() -> None:
    policy = (REPO / "template/deploy/s3-policy.json").read_text(encoding="utf-8")
    page = " ".join((PAGES / "s3/loss.md").read_text(encoding="utf-8").split())
    assert '"Null": { "s3:if-none-match": "true" }' in policy  # rclone does not send it
    assert "run `put-bucket-policy` only after section 3" in page
    assert page.index("delete-bucket-policy") < page.index('rclone copy --immutable "$NEW_FILES"')


def test_haproxy_sees_a_lost_and_a_hung_copy_as_soon_as_the_page_says() -> None:
    page = (PAGES / "copies/loss-of-a-zone.md").read_text(encoding="utf-8")
    haproxy = (REPO / "template/deploy/haproxy.cfg").read_text(encoding="utf-8")
    [lost, hung] = re.findall(r"within (\d+) s", page)
    [[inter, fall]] = re.findall(r"default-server check inter (\d+)ms fall (\d+)", haproxy)
    [check] = re.findall(r"timeout check (\d+)s", haproxy)
    # To connect, a check has as long as the time between two.
    assert int(lost) - 1 < int(fall) * 2 * int(inter) / 1000 <= int(lost)
    assert int(hung) - 1 < int(fall) * (int(check) + int(inter) / 1000) <= int(hung)
