import fcntl
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from copier import _template
from copier._main import Worker
from copier._vcs import clone
from growing import Repo, grow, release
from jinja2 import Environment
from jinja2.sandbox import SandboxedEnvironment
from people import Machine, Person, git
from pytest_copie.plugin import Copie
from variants import at
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

REPO = Path(__file__).parents[1]

SMALL_TEMPLATE = (
    "copier.yml",
    "template/.gitattributes",
    "template/.gitignore",
    "template/README.md.jinja",
    "template/app/__init__.py",
    "template/app/settings.py.jinja",
    "template/dev/uv",
    "template/pyproject.toml.jinja",
    "template/{{_copier_conf.answers_file}}.jinja",
)

CALLERS = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "NO_COLOR", "UV", "VIRTUAL_ENV"}

Render = Callable[[Mapping[str, Any]], Path]


class OneMakeCheckAtATime(LoadScopeScheduling):
    """Each test goes to a free worker. `make check` tests start workers themselves, so they all go
    to one worker, and first."""

    # pytest-xdist's own groups do nothing under pytest 9.2 (pytest-xdist issue 1386).
    def _split_scope(self, nodeid: str) -> str:
        return "make check" if "::test_make_check" in nodeid else nodeid


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors, because tests wait for servers and disks a part of their time."""
    return (os.process_cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneMakeCheckAtATime:
    return OneMakeCheckAtATime(config, log)


@pytest.fixture(scope="session", autouse=True)
def a_machine_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The tests share no git configuration, Copier cache or temporary file with their caller.

    A command runs as in a fresh shell: `make` prints more when another make calls it, and
    .ci/run calls the tests through make.
    """
    # A background job of a shell ignores Ctrl-C, and so would each command that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    machine = Machine.made_in(tmp_path_factory.mktemp("machine"))
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("GIT_", "RUNG_", "COPIER_")) or name in CALLERS:
                patch.delenv(name)
        for name, value in machine.environment.items():
            patch.setenv(name, value)
        # mypy compares files by their hash, so the projects of this worker share its cache. They
        # share Hypothesis' table of Unicode too.
        patch.setenv("MYPY_CACHE_DIR", str(tmp_path_factory.mktemp("mypy")))
        patch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path_factory.mktemp("hypothesis")))
        # Copier asks git for core.fileMode after each file: a third of the time of a render. Where
        # Copier runs as a program, it still does.
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)
        # Copier compiles each part of each path again for each file, half of the remaining time.
        patch.setattr(Environment, "from_string", lru_cache(10_000)(Environment.from_string))
        # Copier renders each part with all answers. Nearly all are plain names.
        patch.setattr(Worker, "_render_string", plain_or(Worker._render_string))
        # It renders the name of the answers file again for each part of each path.
        patch.setattr(Worker, "answers_relpath", Path(".copier-answers.yml"))
        # It has an environment for each render, and compiles the same files in each.
        patch.setattr(SandboxedEnvironment, "compile", compiled_once(SandboxedEnvironment.compile))
        # It clones the template five times for an update.
        patch.setattr(_template, "clone", cloned_once(tmp_path_factory))
        yield machine
    remove_servers_data(tmp_path_factory.getbasetemp())


def cloned_once(folders: pytest.TempPathFactory) -> Callable[..., str]:
    """Only for renders in this process, whose templates are folders."""

    @lru_cache
    def cloned(url: str, ref: str, commit: str) -> str:
        return clone(url, ref, str(folders.mktemp("clone")))

    def cloned_or_kept(url: str, ref: str, location: str) -> str:  # Copier deletes the location
        return cloned(url, ref, git("rev-parse", ref, cwd=Path(url)))

    return cloned_or_kept


def compiled_once(compiled: Callable[..., CodeType]) -> Callable[..., CodeType]:
    """All environments of Copier have the options and extensions of Rung's template."""
    codes: dict[tuple[str, ...], CodeType] = {}

    def compiled_or_kept(environment: SandboxedEnvironment, *source: str) -> CodeType:
        if source not in codes:
            codes[source] = compiled(environment, *source)
        return codes[source]

    return compiled_or_kept


def plain_or(render: Callable[..., str]) -> Callable[..., str]:
    def rendered(worker: Worker, string: str, **context: Any) -> str:
        return render(worker, string, **context) if "{" in string else string

    return rendered


def remove_servers_data(folder: Path) -> None:
    """As root, `dev/postgres.py` keeps a repo's data in /var/lib: others cannot enter the repo."""
    for depth in ("*", "*/*", "*/*/*"):
        for repo in (found.parent for found in folder.glob(f"{depth}/pyproject.toml")):
            fingerprint = sha256(bytes(repo)).hexdigest()[:8]
            shutil.rmtree(f"/var/lib/rung-{repo.name}-{fingerprint}", ignore_errors=True)


class Shared:
    """A folder that all workers of this run share. Tests must not change what lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def made_once(self, name: str, make: Callable[[], Path]) -> Path:
        made = self.folder / name
        with (self.folder / f"{name}.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                make().rename(made)
        return made


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    of_this_worker = tmp_path_factory.getbasetemp()
    folder = of_this_worker.parent if "PYTEST_XDIST_WORKER" in os.environ else of_this_worker
    (folder / "shared").mkdir(exist_ok=True)
    return Shared(folder / "shared")


@pytest.fixture(scope="session")
def template(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared.made_once(
        "rung", lambda: working_tree(tmp_path_factory.mktemp("template") / "rung")
    )


@pytest.fixture(scope="session")
def small_template(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions and a few files: enough for the CLI, and rendered in half the time."""
    return shared.made_once(
        "small-rung",
        lambda: tagged(SMALL_TEMPLATE, tmp_path_factory.mktemp("small-template") / "rung"),
    )


@pytest.fixture
def own_template(small_template: Path, tmp_path: Path) -> Path:
    """A template that a test may change."""
    clone = tmp_path / "own-template"
    git("clone", "--quiet", str(small_template), str(clone), cwd=tmp_path)
    return clone


def working_tree(template: Path) -> Path:
    """The working tree as a template, committed and tagged."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPO)
    return tagged([name for name in listed.split("\0") if (REPO / name).is_file()], template)


@pytest.fixture(scope="session")
def growing_template(tmp_path_factory: pytest.TempPathFactory, small_template: Path) -> Path:
    """Two stages of a few files, with every kind of change between them."""
    clone = tmp_path_factory.mktemp("growing-template") / "rung"
    git("clone", "--quiet", str(small_template), str(clone), cwd=clone.parent)
    git("tag", "--delete", "v0.1.0", cwd=clone)
    grow(clone)
    release(clone, "v0.1.0")
    return clone


@pytest.fixture(scope="session")
def grown(
    growing_template: Path, tmp_path_factory: pytest.TempPathFactory, a_machine_of_its_own: Machine
) -> Path:
    """A project of the growing template at stage 1. Tests must not change it."""
    desk = tmp_path_factory.mktemp("grown")
    environment = {**os.environ, "UV": str(a_machine_of_its_own.quick_uv)}
    # A fork's defaults.yml may name another team.
    new = ("new", "shop", "--template", growing_template, "--data=team=shop-team")
    done = Person(desk, desk, environment).types(*new)
    assert done.returncode == 0, done.stderr
    return desk / "shop"


@pytest.fixture
def repo(person: Person, grown: Path) -> Repo:
    """A project at stage 1, for a test to work on."""
    shutil.copytree(grown, person.desk / "shop")
    return Repo(person, person.desk / "shop")


@pytest.fixture
def own_growing_template(growing_template: Path, repo: Repo) -> Path:
    """The template of the repo, for a test to change. It lies beside the desk."""
    clone = repo.person.desk.parent / "growing-template"
    git("clone", "--quiet", str(growing_template), str(clone), cwd=repo.person.desk)
    repo.edits(".copier-answers.yml", str(growing_template), str(clone))
    return clone


def tagged(names: Iterable[str], template: Path) -> Path:
    for name in names:
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, template / name)
    git("init", "--quiet", "--initial-branch=main", cwd=template)
    git("add", "--all", cwd=template)
    git("commit", "--quiet", "--message=The template", cwd=template)
    git("tag", "v0.1.0", cwd=template)
    return template


@pytest.fixture(scope="session")
def render(template: Path, shared: Shared, copie_session: Copie) -> Render:
    """Renders a project with these answers, once a run. Tests must not change the result."""

    def copied(answers: Mapping[str, Any]) -> Path:
        with redirect_stderr(io.StringIO()):
            result = copie_session.copy(dict(answers), template_dir=template, vcs_ref="v0.1.0")
        assert result.exception is None, result.exception
        assert result.project_dir is not None
        return Path(result.project_dir)

    def rendered(answers: Mapping[str, Any]) -> Path:
        # The same project under one name, whether its options are left out or answered with no.
        if "stage" in answers:
            answers = {**at(answers["stage"], ()), **answers}
        name = sha256(repr(sorted(answers.items())).encode()).hexdigest()
        return shared.made_once(name, lambda: copied(answers))

    return rendered


def skip_without(*programs: str) -> None:
    """Skips the test on a laptop that lacks one of them. In CI the test fails."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}. .ci/run names the packages")


@pytest.fixture
def installed() -> None:
    skip_without("haproxy", "pgbouncer")


@pytest.fixture
def person(tmp_path: Path, small_template: Path, a_machine_of_its_own: Machine) -> Person:
    """Someone who types `rung` in an empty folder, with the template given by RUNG_TEMPLATE."""
    desk = tmp_path / "desk"
    desk.mkdir()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return Person(
        desk,
        temporary,
        {
            **os.environ,
            "RUNG_TEMPLATE": str(small_template),
            "TMPDIR": str(temporary),
            "UV": str(a_machine_of_its_own.quick_uv),
        },
    )


def pytest_configure() -> None:
    # `uv run` sets UV. A uv that the Makefile fetched is not on PATH, and neither is its uvx.
    if uv := os.environ.get("UV"):
        os.environ["PATH"] = f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}"
    # A subprocess of a wheel or of uvx would find this environment's packages first.
    os.environ.pop("PYTHONPATH", None)
    assert shutil.which("git"), "the tests need git"
    assert Path(sys.executable).with_name("rung").exists(), "run the tests with `uv run pytest`"


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
