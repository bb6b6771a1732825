"""Rung as people install it: a wheel, `uvx --from`, `make new`, each in its own environment."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from people import Person, git

pytestmark = pytest.mark.slow


@pytest.fixture
def newcomer(person: Person) -> Person:
    """Someone with uv and nothing of this test run's environment."""
    for name in ("RUNG_TEMPLATE", "UV", "VIRTUAL_ENV"):
        person.environment.pop(name, None)
    person.patience = 300
    return person


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Path:
    clone = tmp_path / "rung"
    git("clone", "--quiet", str(template), str(clone), cwd=tmp_path)
    return clone


def recorded_source(project: Path) -> str:
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return str(answers["_src_path"])


def ran(person: Person, *words: str | Path, at: Path | None = None) -> str:
    done = person.runs(*words, at=at)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_works_and_asks_where_its_template_is(newcomer: Person, checkout: Path) -> None:
    ran(newcomer, "uv", "build", "--quiet", "--wheel", "--out-dir", newcomer.desk, at=checkout)
    (wheel,) = newcomer.desk.glob("rung-*.whl")
    environment = newcomer.desk / "environment"
    ran(newcomer, "uv", "venv", "--quiet", "--python", "3.13", environment, at=checkout)
    python, rung = environment / "bin" / "python", environment / "bin" / "rung"
    ran(newcomer, "uv", "pip", "install", "--quiet", "--python", python, wheel)
    homeless = newcomer.runs(rung, "new", "shop")
    assert homeless.returncode == 1
    assert "RUNG_TEMPLATE" in homeless.stderr
    newcomer.environment["RUNG_TEMPLATE"] = str(checkout)
    assert "make dev" in ran(newcomer, rung, "new", "shop")
    assert recorded_source(newcomer.desk / "shop") == str(checkout)


def test_a_released_wheel_knows_its_template(newcomer: Person, checkout: Path) -> None:
    settings = checkout / "pyproject.toml"
    urls = f'[project.urls]\nTemplate = "{checkout.as_uri()}"\n\n[project.scripts]'
    settings.write_text(settings.read_text().replace("[project.scripts]", urls))
    git("commit", "--quiet", "--all", "--message=Where it is", cwd=checkout)
    git("tag", "--force", "v0.1.0", cwd=checkout)
    ran(newcomer, "uv", "build", "--quiet", "--wheel", "--out-dir", newcomer.desk, at=checkout)
    (wheel,) = newcomer.desk.glob("rung-*.whl")
    ran(
        newcomer,
        "uvx",
        "--quiet",
        "--from",
        wheel,
        "rung",
        "new",
        newcomer.desk / "shop",
        at=checkout,
    )
    assert recorded_source(newcomer.desk / "shop") == f"git+{checkout.as_uri()}"
    answers = yaml.safe_load((newcomer.desk / "shop" / ".copier-answers.yml").read_text())
    assert answers["_commit"] == "v0.1.0"


def test_a_wheel_holds_the_program_and_nothing_else(newcomer: Person, checkout: Path) -> None:
    ran(newcomer, "uv", "build", "--quiet", "--wheel", "--out-dir", newcomer.desk, at=checkout)
    (wheel,) = newcomer.desk.glob("rung-*.whl")
    shutil.unpack_archive(wheel, newcomer.desk / "unpacked", "zip")
    tops = {path.name for path in (newcomer.desk / "unpacked").iterdir()}
    assert tops == {"rung", "rung-0.1.0.dist-info"}


def test_uvx_creates_a_project_from_a_clean_clone(newcomer: Person, checkout: Path) -> None:
    shop = newcomer.desk / "shop"
    ran(newcomer, "uvx", "--quiet", "--from", ".", "rung", "new", shop, at=checkout)
    assert recorded_source(shop) == str(checkout)
    assert (shop / "uv.lock").is_file()
    assert git("status", "--porcelain", cwd=checkout) == ""


def test_uvx_makes_a_project_from_a_git_url(newcomer: Person, checkout: Path) -> None:
    shop = newcomer.desk / "shop"
    source = f"git+{checkout.as_uri()}"
    ran(newcomer, "uvx", "--quiet", "--from", source, "rung", "new", shop, at=checkout)
    assert recorded_source(shop) == source


def test_make_new_works_in_a_fresh_clone(newcomer: Person, checkout: Path) -> None:
    shown = ran(newcomer, "make", "--silent", "new", f"DEST={newcomer.desk}/web shop", at=checkout)
    assert shown.endswith("    make dev\n")
    assert recorded_source(newcomer.desk / "web shop") == str(checkout)
    assert git("status", "--porcelain", cwd=checkout) == ""


def test_make_new_passes_the_stage_and_arguments_to_rung(newcomer: Person, checkout: Path) -> None:
    more = ["STAGE=2", "ARGS=--data replica_routing=true --data 'project_name=Tea House'"]
    shop = newcomer.desk / "shop"
    ran(newcomer, "make", "--silent", "new", f"DEST={shop}", *more, at=checkout)
    answers = yaml.safe_load((shop / ".copier-answers.yml").read_text())
    assert (answers["stage"], answers["replica_routing"]) == (2, True)
    assert answers["project_name"] == "Tea House"


def test_make_install_installs_a_rung_that_knows_its_template(
    newcomer: Person, checkout: Path
) -> None:
    tools = newcomer.temporary / "tools"
    newcomer.environment |= {"UV_TOOL_DIR": str(tools), "UV_TOOL_BIN_DIR": str(tools / "bin")}
    ran(newcomer, "make", "--silent", "install", at=checkout)
    ran(newcomer, tools / "bin" / "rung", "new", "shop")
    assert recorded_source(newcomer.desk / "shop") == str(checkout)


def test_make_new_asks_for_a_place(newcomer: Person, checkout: Path) -> None:
    done = newcomer.runs("make", "--silent", "new", at=checkout)
    assert done.returncode == 2
    assert "make new DEST=../shop" in done.stderr


def test_make_fetches_a_missing_uv(newcomer: Person, checkout: Path) -> None:
    without_uv = [f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "uv").exists()]
    newcomer.environment["PATH"] = os.pathsep.join(without_uv)
    newcomer.environment["XDG_CACHE_HOME"] = str(newcomer.temporary / "cache")
    shown = ran(newcomer, "make", "--silent", "new", f"DEST={newcomer.desk}/shop", at=checkout)
    assert shown.endswith("    make dev\n")


def test_make_install_without_uv_installs_a_rung_that_can_lock(
    newcomer: Person, checkout: Path
) -> None:
    without_uv = [f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "uv").exists()]
    tools = newcomer.temporary / "tools"
    newcomer.environment |= {
        "PATH": os.pathsep.join(without_uv),
        "XDG_CACHE_HOME": str(newcomer.temporary / "cache"),
        "UV_TOOL_DIR": str(tools),
        "UV_TOOL_BIN_DIR": str(tools / "bin"),
        "UV_PYTHON": "/nowhere/python",
        "UV_PROJECT": "/nowhere",
        "PIP_TARGET": str(newcomer.temporary / "elsewhere"),
        "PIP_DRY_RUN": "1",
    }
    ran(newcomer, "make", "--silent", "install", at=checkout)
    ran(newcomer, tools / "bin" / "rung", "new", "shop")
    assert 'name = "fastapi"' in git("show", "HEAD:uv.lock", cwd=newcomer.desk / "shop")
    assert not (newcomer.temporary / "elsewhere").exists()
    (python,) = (tools / "rung" / "lib").iterdir()
    assert python.name == f"python{(checkout / '.python-version').read_text().strip()}"
