from collections.abc import Iterator

from edits.corpus import Repo, edit

CHECK = ".github/workflows/check.yml"


@edit("changes")
def a_section_of_the_readme(repo: Repo) -> Iterator[None]:
    section = "## On call\n\nTelefon: Jürgen, „täglich“.  \nSonst: niemand.\n\n"
    repo.insert("README.md", section, before="## Find your way\n")
    yield
    assert f"\n\n{section}## Find your way\n" in (repo.read("README.md"))


@edit("changes")
def a_line_of_the_readmes_table(repo: Repo) -> Iterator[None]:
    line = "| `app/reviews` | what people say of us |\n"
    repo.insert("README.md", line, before="| `app/main.py` |")
    yield
    assert f"{line}| `app/main.py` |" in repo.read("README.md")


@edit("changes")
def a_service_of_compose_beside_the_app(repo: Repo) -> Iterator[None]:
    repo.append("compose.yaml", "\n  mailpit:\n    image: axllent/mailpit:v1.27\n")
    yield
    services = repo.yaml("compose.yaml")["services"]
    assert list(services) == ["app", "mailpit"]
    assert services["app"]["extends"]["file"] == "deploy/app.yaml"


@edit("changes")
def what_compose_includes_overridden(repo: Repo) -> Iterator[None]:
    old = "include:\n  - deploy/compose.yaml\n"
    new = "include:\n  - path:\n      - deploy/compose.yaml\n      - compose.ours.yaml\n"
    repo.replace("compose.yaml", old, new)
    override = "services:\n  postgres:\n    command: [postgres, -c, work_mem=16MB]\n"
    repo.write("compose.ours.yaml", override)
    yield
    (included,) = repo.yaml("compose.yaml")["include"]
    assert included["path"] == ["deploy/compose.yaml", "compose.ours.yaml"]
    assert repo.read("compose.ours.yaml") == override


@edit("changes")
def a_variable_for_the_app_in_compose(repo: Repo) -> Iterator[None]:
    environment = "    environment:\n      APP_TITLE: Unser Laden\n"
    repo.insert("compose.yaml", environment, before="    extends:\n")
    yield
    assert repo.yaml("compose.yaml")["services"]["app"]["environment"]["APP_TITLE"] == "Unser Laden"


@edit("changes")
def a_step_of_ci(repo: Repo) -> Iterator[None]:
    repo.append(CHECK, "      - run: make imprint\n")
    yield
    steps = repo.yaml(CHECK)["jobs"]["check"]["steps"]
    assert [step.get("run") for step in steps[-2:]] == ["make check", "make imprint"]


@edit("changes")
def a_job_of_ci_and_a_longer_timeout(repo: Repo) -> Iterator[None]:
    repo.replace(CHECK, "timeout-minutes: 15", "timeout-minutes: 30")
    job = "  labels:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo labelled\n"
    repo.insert(CHECK, job, before="  check:\n    runs-on")
    yield
    jobs = repo.yaml(CHECK)["jobs"]
    assert list(jobs) == ["labels", "check"]
    assert jobs["check"]["timeout-minutes"] == 30


@edit("changes")
def a_system_package_in_the_image(repo: Repo) -> Iterator[None]:
    run = "RUN apt-get update && apt-get install -y --no-install-recommends libmagic1\n"
    repo.insert("Dockerfile", run, before="RUN useradd ")
    yield
    assert f"\n\nFROM python:3.13-slim\n{run}RUN useradd " in repo.read("Dockerfile")


@edit("changes")
def another_folder_in_the_image(repo: Repo) -> Iterator[None]:
    repo.insert("Dockerfile", "COPY templates templates\n", before="COPY migrations migrations\n")
    repo.insert(".dockerignore", "!templates/\n", before="!pyproject.toml\n")
    repo.write("templates/mail.html", "<p>Schön, dass Sie da sind.</p>\n")
    yield
    copied = "COPY app app\nCOPY templates templates\nCOPY migrations migrations\n"
    assert copied in repo.read("Dockerfile")
    assert "!migrations/\n!templates/\n!pyproject.toml\n" in repo.read(".dockerignore")


@edit("changes")
def a_target_of_make(repo: Repo) -> Iterator[None]:
    target = "\nimprint: ## Say who we are\n\t@echo Müller\n"
    repo.append("Makefile", target)
    repo.replace(
        "Makefile",
        "help setup test check format tour\n",
        "help setup test check format tour imprint\n",
    )
    yield
    assert repo.read("Makefile").endswith(f"bash scripts/tour.sh\n{target}")
    assert ".PHONY: help setup test check format tour imprint\n" in repo.read("Makefile")


@edit("changes")
def a_makefile_of_the_teams_own_included(repo: Repo) -> Iterator[None]:
    repo.replace("Makefile", "include dev/*.mk\n", "include dev/*.mk\n-include team.mk\n")
    repo.write("team.mk", ".PHONY: hello\n\nhello: ## Greet\n\t@echo hello\n")
    yield
    assert repo.read("Makefile").startswith("include dev/*.mk\n-include team.mk\n")
    assert "hello: ## Greet\n\t@echo" in repo.read("team.mk")


@edit("changes")
def a_step_more_in_make_check(repo: Repo) -> Iterator[None]:
    repo.insert(
        "Makefile", "\t$(RUN) python scripts/spelling.py\n", before="\t$(RUN) lint-imports\n"
    )
    repo.write("scripts/spelling.py", 'print("All words are known.")\n')
    yield
    assert "\t$(RUN) mypy\n\t$(RUN) python scripts/spelling.py\n" in repo.read("Makefile")


@edit("changes")
def more_variables_in_the_example(repo: Repo) -> Iterator[None]:
    lines = "\n# Where Müller & Søn answer.\n# APP_SUPPORT_EMAIL=hilfe@example.com\n"
    repo.append(".env.example", lines)
    yield
    assert repo.read(".env.example").endswith(f"5432/postgres\n{lines}")


@edit("changes")
def more_for_git_to_ignore(repo: Repo) -> Iterator[None]:
    repo.append(".gitignore", ".idea/\n.coverage\nhtmlcov/\n*.sqlite3\n.DS_Store\n")
    yield
    assert "/client/\n.idea/\n.coverage\n" in repo.read(".gitignore")


@edit("changes")
def a_rule_of_renovate(repo: Repo) -> Iterator[None]:
    repo.insert("renovate.json", '  "timezone": "Europe/Oslo",\n', before='  "enabledManagers"')
    yield
    assert '"config:recommended"],\n  "timezone": "Europe/Oslo",\n' in repo.read("renovate.json")


@edit("changes")
def a_file_made_executable(repo: Repo) -> Iterator[None]:
    (repo.root / "app/accounts/promote.py").chmod(0o755)
    yield
    assert (repo.root / "app/accounts/promote.py").stat().st_mode & 0o111 == 0o111


@edit("changes")
def a_text_without_its_last_newline(repo: Repo) -> Iterator[None]:
    repo.write(".python-version", "3.13")
    yield
    assert repo.read(".python-version") == "3.13"


@edit("changes")
def words_in_a_file_that_came_empty(repo: Repo) -> Iterator[None]:
    repo.write("app/catalog/__init__.py", '"""What we sell."""\n')
    yield
    assert repo.read("app/catalog/__init__.py") == '"""What we sell."""\n'
