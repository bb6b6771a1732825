"""Hostile answers, templates, repos, places, terminals and environments, one row each.

A row that cannot work ends with one line on stderr, exit 1 or 2, and the disk as it was. A row
that only misleads changes nothing.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from growing import Repo
from people import RUNG, Person, git
from rung.dependencies import find_uv

pytestmark = pytest.mark.slow

type Rows[T] = Mapping[str, T]

SURROGATE = os.fsdecode(b"\xff\xfe")


def rows[T](table: Rows[T]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", list(table.values()), ids=list(table))


def refused(done: subprocess.CompletedProcess[str], *codes: int) -> str:
    assert done.returncode in (codes or (1, 2)), done.stdout + done.stderr
    assert done.stderr.startswith("rung: "), done.stderr
    assert done.stderr.endswith("\n")
    line = done.stderr[:-1]
    assert line.isprintable(), line
    assert "bug of Rung" not in line
    assert len(line) < 1500
    return line


def refuses(person: Person, *words: str | Path, at: Path | None = None) -> str:
    with person.leaving_no_trace():
        return refused(person.types(*words, at=at))


ANSWERS: Rows[bytes] = {
    "empty": b"",
    "a null byte": b"\x00",
    "null bytes": b"\x00" * 1000,
    "a list": b"- team\n",
    "a number": b"7\n",
    "a string": b"team\n",
    "an open list": b"a: [1",
    "an open mapping": b"a: {1",
    "an open string": b'a: "1',
    "a tab": b"\tteam: x\n",
    "an anchor and its alias": b"team: &a x\ndescription: *a\n",
    "an unknown alias": b"team: *nobody\n",
    "an endless alias": b"a: &a [*a]\n",
    "an endless mapping": b"a: &a {b: *a}\n",
    "a billion laughs": b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9) if n else b"lol")
        for n in range(9)
    ),
    "20,000 brackets": b"[" * 20_000,
    "20,000 braces": b"{" * 20_000,
    "60 levels": b"a: " + b"[" * 60 + b"]" * 60,
    "20,000 dashes": b"- " * 20_000,
    "deep indentation": b"".join(b"  " * n + b"a:\n" for n in range(200)),
    "a word as int": b'team: !!int "zz"\n',
    "a word as float": b'team: !!float "zz"\n',
    "a word as bool": b'team: !!bool "zz"\n',
    "a word as timestamp": b'team: !!timestamp "zz"\n',
    "a word as binary": b'team: !!binary "*"\n',
    "an impossible date": b"team: 2026-99-99\n",
    "a date": b"team: 2026-11-25\n",
    "a set": b"team: !!set {a, b}\n",
    "a python object": b"team: !!python/object/apply:os.system [true]\n",
    "a python name": b"team: !!python/name:os.system\n",
    "a python tuple": b"team: !!python/tuple [1]\n",
    "an unknown tag": b"team: !mine x\n",
    "a list as a key": b"[a]: 1\n",
    "a mapping as a key": b"{a: 1}: 1\n",
    "a merge of a word": b"<<: team\n",
    "two documents": b"team: a\n---\nteam: b\n",
    "a directive": b"%YAML 9.9\n---\nteam: a\n",
    "a bad directive": b"%YAML x\n---\nteam: a\n",
    "latin-1": "team: Läden\n".encode("latin-1"),
    "utf-16": "team: x\n".encode("utf-16"),
    "utf-32": "team: x\n".encode("utf-32"),
    "a lone surrogate": b"team: \xed\xa0\x80\n",
    "an overlong character": b"team: \xc0\xaf\n",
    "2 MiB of answers": b"team: x\n" * 262_144,
    "2 MiB in one answer": b"team: " + b"x" * (2 << 20),
    "conflict markers": b"<<<<<<< HEAD\nteam: a\n=======\nteam: b\n>>>>>>> x\n",
    "a list as an answer": b"team: [leaves]\n",
    "a mapping as an answer": b"team: {a: b}\n",
    "no answer": b"team:\n",
    "null": b"team: null\n",
    "a stage in words": b"stage: two\n",
    "a stage that is true": b"stage: true\n",
    "half a stage": b"stage: 1.5\n",
    "stage 0": b"stage: 0\n",
    "stage 5": b"stage: 5\n",
    "stage -1": b"stage: -1\n",
    "an endless stage": b"stage: .inf\n",
    "no number as a stage": b"stage: .nan\n",
    "a huge stage": b"stage: " + b"9" * 5000 + b"\n",
    "an unknown question": b"projectname: Shop\n",
    "a number as a question": b"1: Shop\n",
    "an empty question": b'"": Shop\n',
    "a maybe": b"stage: 3\nreplica_routing: maybe\n",
    "an option before its stage": b"replica_routing: true\n",
    "a computed answer": b"has_replicas: true\n",
    "a bell in a name": b'team: "a\\ab"\n',
    "a next line in a name": b'project_name: "a\\x85b"\n',
    "a bidi override in a name": 'project_name: "a\u202eb"\n'.encode(),
    "a bidi isolate in a team": 'team: "a\u2066b"\n'.encode(),
    "a line separator": 'description: "a\u2028b"\n'.encode(),
    "a byte order mark inside": 'project_name: "a\ufeffb"\n'.encode(),
    "an escape": b'description: "a\\e[31mb"\n',
    "61 letters": b"project_name: " + b"a" * 61 + b"\n",
    "an empty name": b'project_name: " "\n',
    "a slug in capitals": b"project_slug: Shop\n",
    "a slug that is a path": b"project_slug: ../shop\n",
    "jinja as a slug": b'project_slug: "{{ 7 * 7 }}"\n',
}


@rows(ANSWERS)
def test_an_answers_file(person: Person, row: bytes) -> None:
    (person.desk / "answers.yml").write_bytes(row)
    refuses(person, "new", "shop", "--answers", "answers.yml")


@rows({text: text for text in ("yes", "Off", "true", "0123", "1_000", "1:30", "1e3", "1.50")})
def test_an_answer_in_a_file_is_taken_as_it_is_written(person: Person, row: str) -> None:
    (person.desk / "answers.yml").write_text(f"team: {row}\nstage: 2\nreplica_routing: on\n")
    done = person.types("new", "shop", "--answers", "answers.yml")
    assert (done.returncode, done.stderr) == (0, "")
    recorded = yaml.safe_load((person.desk / "shop/.copier-answers.yml").read_text("utf-8"))
    found = [recorded[key] for key in ("team", "stage", "replica_routing")]
    assert found == [row, 2, True]


def make_fifo(place: Path) -> None:
    os.mkfifo(place)


def make_huge(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(1 << 30)


def make_folder(place: Path) -> None:
    place.mkdir()


def make_dangling_link(place: Path) -> None:
    place.symlink_to("nowhere")


def make_loop(place: Path) -> None:
    place.symlink_to(place.name)


def make_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def make_socket(place: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(place.parent)  # A socket's name is at most 107 bytes long.
        listening.bind(place.name)
        os.chdir(here)


ODD_FILES: Rows[Callable[[Path], None]] = {
    "a fifo": make_fifo,
    "1 GiB": make_huge,
    "a folder": make_folder,
    "a dangling link": make_dangling_link,
    "a link to itself": make_loop,
    "an endless device": make_device,
    "a socket": make_socket,
    "nothing": lambda place: None,
}


@rows(ODD_FILES)
def test_an_answers_file_that_is_not_one(person: Person, row: Callable[[Path], None]) -> None:
    row(person.desk / "answers.yml")
    done = person.types("new", "shop", "--answers", "answers.yml")
    assert "answers.yml cannot be read" in refused(done, 2)
    assert not (person.desk / "shop").exists()


@rows(ODD_FILES)
def test_recorded_answers_that_are_not_a_file(repo: Repo, row: Callable[[Path], None]) -> None:
    (repo.folder / ".copier-answers.yml").unlink()
    row(repo.folder / ".copier-answers.yml")
    for command in (("status",), ("advance", "--yes"), ("undo",)):
        refused(repo.rung(*command), 1)


@rows({name: row for name, row in ODD_FILES.items() if name != "nothing"})
def test_a_migration_that_is_not_a_file(repo: Repo, row: Callable[[Path], None]) -> None:
    (repo.folder / "migrations" / "versions").mkdir(parents=True)
    row(repo.folder / "migrations" / "versions" / "0001.py")
    done = repo.rung("status")
    assert (done.returncode, done.stderr) == (0, "")


MIGRATIONS: Rows[bytes] = {
    "a set with a list": b"revision = {[]}\n",
    "a mapping with a list": b"revision = {[]: 1}\n",
    "a call": b"revision = exit(7)\n",
    "a deep expression": b"revision = " + b"(" * 5000 + b")" * 5000,
    "a long sum": b"revision = " + b"-" * 50_000 + b"1",
    "a null byte": b"revision = '\x00'\n",
    "a syntax error": b"revision = = 1\n",
    "latin-1": b"revision = '\xe4'\n",
    "an unknown encoding": b"# coding: nothing\nrevision = '1'\n",
    "an invalid escape": b"revision = '\\d'\n",
    "a huge number": b"revision = " + b"9" * 9000 + b"\n",
    "bytes": b"revision = b'1'\n",
    "2 MiB": b"#" * (2 << 20),
}


@rows(MIGRATIONS)
def test_a_migration(repo: Repo, row: bytes) -> None:
    (repo.folder / "migrations" / "versions").mkdir(parents=True)
    (repo.folder / "migrations" / "versions" / "0001.py").write_bytes(row)
    done = repo.rung("status")
    assert (done.returncode, done.stderr) == (0, "")


DATA: Rows[tuple[str, ...]] = {
    "no equals sign": ("team",),
    "no name": ("=x",),
    "nothing": ("",),
    "copier's own": ("_copier_conf=x",),
    "the source": ("_src_path=/x",),
    "the version": ("_commit=x",),
    "an underscore": ("_=x",),
    "an unknown one": ("colour=blue",),
    "a name with a space": ("te am=x",),
    "a name with a dot": ("team.name=x",),
    "a name in braces": ("{{team}}=x",),
    "not utf-8": (f"team={SURROGATE}",),
    "a name not utf-8": (f"{SURROGATE}=x",),
    "a newline": ("team=a\nb",),
    "a carriage return": ("team=a\rb",),
    "an escape": ("team=\x1b[31m",),
    "delete": ("team=a\x7f",),
    "next line": ("team=a\x85b",),
    "a bidi override": ("team=a\u202eb",),
    "a bidi mark": ("team=a\u200fb",),
    "an arabic mark": ("team=a\u061cb",),
    "a bidi isolate": ("team=a\u2067b",),
    "a paragraph separator": ("team=a\u2029b",),
    "a newline in a description": ("description=a\nb",),
    "a bidi override in a description": ("description=a\u202db",),
    "a control in a name": ("project_name=a\x01b",),
    "a bidi embedding in a name": ("project_name=a\u202ab",),
    "nobody's team": ("team=",),
    "a blank team": ("team=   ",),
    "an empty slug": ("project_slug=",),
    "a slug with a dot": ("project_slug=a.b",),
    "a slug with a slash": ("project_slug=a/b",),
    "a slug with two hyphens": ("project_slug=a--b",),
    "a slug that ends with a hyphen": ("project_slug=a-",),
    "a slug that begins with a digit": ("project_slug=1a",),
    "a slug with an umlaut": ("project_slug=läden",),
    "a slug in another script": ("project_slug=茶館",),
    "a slug with a wide digit": ("project_slug=a\uff11",),
    "a slug with a newline": ("project_slug=shop\n",),
    "a slug that YAML reads as no": ("project_slug=no",),
    "a slug that YAML reads as nothing": ("project_slug=null",),
    "a slug that YAML reads as true": ("project_slug=on",),
    "a slug of 41 letters": (f"project_slug={'a' * 41}",),
    "a name without a slug": ("project_name=茶館",),
    "a name that is partly without": ("project_name=Süß 茶館",),
    "a name of digits": ("project_name=2024",),
    "a name of signs": ("project_name=!!!",),
    "a name of 61 letters": (f"project_name={'a' * 61}",),
    "a megabyte": (f"team={'x' * 100_000}\n",),
    "stage 0": ("stage=0",),
    "stage 5": ("stage=5",),
    "stage 2.0": ("stage=2.0",),
    "stage 1e0": ("stage=1e0",),
    "stage 0x1": ("stage=0x1",),
    "stage in arabic": ("stage=\u0661",),
    "stage ²": ("stage=²",),
    "no stage": ("stage=",),
    "a long stage": (f"stage={'9' * 5000}",),
    "a maybe": ("stage=2", "replica_routing=maybe"),
    "a yes in german": ("stage=2", "replica_routing=ja"),
    "nothing for yes": ("stage=2", "replica_routing="),
    "an option too early": ("replica_routing=true",),
    "a computed one": ("has_replicas=true",),
}


@rows(DATA)
def test_an_answer_on_the_command_line(person: Person, row: tuple[str, ...]) -> None:
    refuses(person, "new", "shop", *(f"--data={pair}" for pair in row))


PLACES: Rows[str] = {
    "nothing": "",
    "the root": "/",
    "a device": "/dev/null",
    "under a device": "/dev/null/shop",
    "in /proc": "/proc/shop",
    "a newline": "a\nb",
    "a tab": "a\tb",
    "an escape": "\x1b[2J",
    "a bidi override": "a\u202eb",
    "not utf-8": SURROGATE,
    "a long name": "a" * 300,
    "a long path": "a/" * 3000,
    "the desk": ".",
    "above": "..",
    "a file": "file",
    "under a file": "file/shop",
    "a full folder": "full",
    "a dangling link": "dangling",
    "under a dangling link": "dangling/shop",
    "a link to itself": "loop",
    "under a link to itself": "loop/shop",
    "a link to a full folder": "linked",
    "another project's git": "other/.git",
    "a git directory": "shop/.git",
}


@rows(PLACES)
def test_a_place(person: Person, row: str) -> None:
    (person.desk / "file").touch()
    (person.desk / "full").mkdir()
    (person.desk / "full" / ".hidden").touch()
    (person.desk / "linked").symlink_to("full")
    (person.desk / "dangling").symlink_to("nowhere")
    (person.desk / "loop").symlink_to("loop")
    git("init", "--quiet", "other", cwd=person.desk)
    refuses(person, "new", "--data=project_slug=shop", "--", row)


SOURCES: Rows[str] = {
    "nobody's home": "~nobody-here/x",
    "a missing folder": "../rungs",
    "a file": "/etc/hostname",
    "a device": "/dev/null",
    "the root": "/",
    "a long path": "/" + "a" * 5000,
    "a newline": "a\nb",
    "an escape": "\x1b[31m",
    "not utf-8": SURROGATE,
    "a URL that nobody answers": "file:///nowhere.git",
    "a closed port": "http://127.0.0.1:9/rung.git",
    "a bad port": "http://127.0.0.1:x/rung.git",
    "a bad address": "http://[/rung.git",
    "no host": "https:///rung.git",
    "an unknown scheme": "zzz://example.invalid/rung",
    "an option": "git+--upload-pack=true",
    "an option with a scheme": "git+-u://x",
    "a program": "git+ext::sh -c true",
    "a password": "https://ada:secret@git.example.com/rung.git",
    "a password in an option": "git+https://ada:secret@git.example.com/rung.git",
    "a closed ssh": "ssh://127.0.0.1:9/rung.git",
    "a short form of nothing": "gh:",
    "an empty url": "git+",
    "spaces": "   ",
    "the desk": ".",
    "an empty repository": "empty",
    "a bare repository": "bare.git",
    "a folder of a repository": "clone/template",
    "a shallow past": "file",
}


@rows(SOURCES)
def test_a_template_source(person: Person, small_template: Path, row: str) -> None:
    git("init", "--quiet", "empty", cwd=person.desk)
    git("init", "--quiet", "--bare", "bare.git", cwd=person.desk)
    git("clone", "--quiet", str(small_template), "clone", cwd=person.desk)
    (person.desk / "file").touch()
    person.environment |= {"RUNG_TEMPLATE": row, "GIT_SSH_COMMAND": "false"}
    refuses(person, "new", "shop")


SECRETS: Rows[str] = {
    "a password": "https://ada:s3cret@127.0.0.1:1/rung.git",
    "a password with an at sign": "https://ada:p@s3cret@127.0.0.1:1/rung.git",
    "a password with a slash": "https://ada:p/s3cret@127.0.0.1:1/rung.git",
    "a password with a hash": "https://ada:p#s3cret@127.0.0.1:1/rung.git",
    "a password and a bracket": "https://ada:s3cret@[/rung.git",
    "a token as user": "https://ghp_s3cret0123456789abcdef@127.0.0.1:1/rung.git",
}


@rows(SECRETS)
def test_no_secret_of_a_url_is_shown(repo: Repo, row: str) -> None:
    person = repo.person
    repo.write("list", f"{row}\n")
    for words in (
        ("new", "../inn", "--template", row),
        ("new", "../inn", "--like", row),
        ("fleet", row),
        ("fleet", "list", "--json"),
        ("fleet", "upgrade", "list", "--dry-run"),
    ):
        done = person.types(*words, at=repo.folder)
        assert "s3cret" not in done.stdout + done.stderr, words
        assert "bug of Rung" not in done.stderr
        assert person.leftovers() == ["shop"]
    # Plain Copier records such a URL.
    repo.edits(".copier-answers.yml", "_src_path: ", f'_src_path: "git+{row}" #')
    for command in (("status",), ("status", "--json"), ("advance", "--yes"), ("upgrade",)):
        done = person.types(*command, at=repo.folder)
        assert "s3cret" not in done.stdout + done.stderr, command
        assert "bug of Rung" not in done.stderr


def test_a_token_in_place_of_a_user_is_not_recorded(person: Person) -> None:
    line = refuses(person, "new", "shop", f"--template={SECRETS['a token as user']}")
    assert "holds a password or token" in line


COPIER_YML: Rows[str] = {
    "empty": "",
    "a list": "- a\n",
    "not yaml": "a: [1\n",
    "an unknown alias": "a: *b\n",
    "20,000 brackets": "[" * 20_000,
    "a word as int": 'a: !!int "zz"\n',
    "a python object": "a: !!python/object/apply:os.system [true]\n",
    "a task": "_tasks: [touch ran]\n",
    "a migration": "_migrations: [{version: v1, before: [touch x]}]\n",
    "an extension": "_jinja_extensions: [os.system]\n",
    "no subfolder": "_subdirectory: nowhere\n",
    "a subfolder outside": "_subdirectory: ../..\n",
    "a number as subfolder": "_subdirectory: 7\n",
    "a number as exclude": "_exclude: 7\n",
    "a bad exclude": '_exclude: ["{{ 1/0 }}"]\n',
    "a newer copier": '_min_copier_version: "99.0"\n',
    "a bad version": "_min_copier_version: zz\n",
    "a bad envops": "_envops: {nothing: 1}\n",
    "a bad delimiter": "_envops: {block_start_string: ''}\n",
    "a bad suffix": "_templates_suffix: 7\n",
    "an include": "x: !include /etc/hostname\n",
    "a question as a number": "project_slug: 7\nstage: 1\nteam: {type: nothing}\n",
    "an unknown type": "stage: {type: nothing}\nproject_slug: a\n",
    "an unknown key": "stage: {typ: int}\nproject_slug: a\n",
    "a default that divides by zero": 'stage: {type: int, default: "{{ 1/0 }}"}\n',
    "a default that is too big": "stage: {type: str, default: \"{{ 'a' * 10**12 }}\"}\n",
    "a default that recurses": (
        'stage: {type: str, default: "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"}\n'
    ),
    "a default that reaches out": (
        "stage: {type: str, default: \"{{ ''.__class__.__mro__[1].__subclasses__() }}\"}\n"
    ),
    "an unknown filter": 'stage: {type: int, default: "{{ 1 | nothing }}"}\n',
    "an unknown name": 'stage: {type: int, default: "{{ nothing.at.all }}"}\n',
    "a syntax error": 'stage: {type: int, default: "{{ "}\n',
    "no choices": "stage: {type: int, choices: []}\n",
    "choices of a number": "stage: {type: int, choices: 7}\n",
    "a validator that refuses": 'project_slug: {default: x, validator: "never"}\nstage: 1\n',
    "a secret": "stage: {type: int, secret: true}\nproject_slug: x\n",
    "no project_slug": "stage: 1\n",
    "no stage": "project_slug: x\n",
}


@rows(COPIER_YML)
def test_a_templates_settings(person: Person, own_template: Path, row: str) -> None:
    strict = "_envops: {undefined: jinja2.StrictUndefined}\n" if "_envops" not in row else ""
    (own_template / "copier.yml").write_text(strict + row, encoding="utf-8")
    git("commit", "--quiet", "--all", "--message=Hostile", cwd=own_template)
    refuses(person, "new", "shop", "--template", own_template, "--data=team=x")


RENDERED: Rows[tuple[str, str]] = {
    "git's config": ("{{ '.git' }}/config", '[filter "x"]\n\tclean = touch ran\n'),
    "git's hook": ("{{ '.git' }}/hooks/pre-commit", "touch ran\n"),
    "git in capitals": ("{{ '.GIT' }}/config", "x\n"),
    "git deeper": ("app/{{ '.git' }}/config", "x\n"),
    "git as a file": ("{{ '.git' }}", "gitdir: /tmp\n"),
    "git with a dot": ("{{ '.git.' }}/config", "x\n"),
    "git's short name": ("{{ 'GIT~1' }}/config", "x\n"),
    "git with an invisible letter": ("{{ '.g\u200cit' }}/config", "x\n"),
    "a path above": ("{{ '..' }}/{{ '..' }}/out", "x\n"),
    "an unknown name": ("file.jinja", "{{ nothing }}\n"),
    "a division by zero": ("file.jinja", "{{ 1 / 0 }}\n"),
    "a missing attribute": ("file.jinja", "{{ stage.a.b }}\n"),
    "a wrong type": ("file.jinja", "{{ stage + 'a' }}\n"),
    "a wrong key": ("file.jinja", "{{ {}['a'] }}\n"),
    "a wrong index": ("file.jinja", "{{ [][7] }}\n"),
    "an endless recursion": ("file.jinja", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}\n"),
    "a syntax error": ("file.jinja", "{% if %}\n"),
    "an unknown include": ("file.jinja", "{% include 'nothing' %}\n"),
    "a huge range": ("file.jinja", "{% for i in range(10**9) %}{% endfor %}\n"),
    "an escape from the sandbox": ("file.jinja", "{{ ''.__class__.__mro__ }}\n"),
    "broken answers": ("{{_copier_conf.answers_file}}.jinja", "[\n"),
    "answers with an alias": ("{{_copier_conf.answers_file}}.jinja", "a: &a 1\nb: *a\n"),
    "a list of answers": ("{{_copier_conf.answers_file}}.jinja", "- 1\n"),
}


@rows(RENDERED)
def test_a_templates_file(person: Person, own_template: Path, row: tuple[str, str]) -> None:
    name, content = row
    settings = own_template / "copier.yml"
    text = settings.read_text(encoding="utf-8").replace("  - .git\n", "")
    settings.write_text(text, encoding="utf-8")
    file = own_template / "template" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    git("add", "--all", "--force", cwd=own_template)
    git("commit", "--quiet", "--message=Hostile", cwd=own_template)
    refuses(person, "new", "shop", "--template", own_template)


RECORDED: Rows[str] = {
    "empty": "",
    "a list": "- stage\n",
    "not yaml": "stage: [\n",
    "conflict markers": "<<<<<<< HEAD\nstage: 1\n",
    "an endless alias": "a: &a [*a]\n",
    "20,000 brackets": "[" * 20_000,
    "a null byte": "\x00",
    "no source": "_commit: v0.1.0\nstage: 1\n",
    "no version": "_src_path: /x\nstage: 1\n",
    "no stage": "_src_path: /x\n_commit: v0.1.0\n",
    "a stage in words": "_src_path: /x\n_commit: v0.1.0\nstage: two\n",
    "a negative stage": "_src_path: /x\n_commit: v0.1.0\nstage: -1\n",
    "stage 7": "_src_path: /x\n_commit: v0.1.0\nstage: 7\n",
    "two versions, as after a merge": "_src_path: /x\n_commit: v0.1.0\n_commit: v0.2.0\nstage: 1\n",
    "a true stage": "_src_path: /x\n_commit: v0.1.0\nstage: true\n",
    "an empty version": "_src_path: /x\n_commit: ''\nstage: 1\n",
    "a list as source": "_src_path: [a]\n_commit: v0.1.0\nstage: 1\n",
    "a number as version": "_src_path: /x\n_commit: 7\nstage: 1\n",
    "an option as source": "_src_path: --help\n_commit: v0.1.0\nstage: 1\n",
    "an option as version": "_src_path: /x\n_commit: --help\nstage: 1\n",
    "a control in the source": '_src_path: "/a\\x1bb"\n_commit: v0.1.0\nstage: 1\n',
    "a null byte in the source": '_src_path: "/a\\0b"\n_commit: v0.1.0\nstage: 1\n',
    "a surrogate in the version": '_src_path: /x\n_commit: "\\ud800"\nstage: 1\n',
    "an impossible date": "_src_path: /x\n_commit: v0.1.0\nstage: 1\nteam: 2026-99-99\n",
    "too large": "a: b\n" * 300_000,
    "a number as a question": "_src_path: /x\n_commit: v0.1.0\nstage: 1\n1: x\n",
    "a date as a question": "_src_path: /x\n_commit: v0.1.0\nstage: 1\n2026-11-27: x\n",
}


@rows(RECORDED)
def test_recorded_answers(repo: Repo, row: str) -> None:
    repo.write(".copier-answers.yml", row)
    repo.commit("Hostile")
    for command in (("status",), ("advance", "--yes"), ("upgrade",)):
        line = refuses(repo.person, *command, at=repo.folder)
        assert "git log -p -- .copier-answers.yml" in line


@rows({"a date": "2026-11-27", "bytes": "!!binary eA=="})
def test_a_recorded_answer_that_is_no_text_is_shown(repo: Repo, row: str) -> None:
    repo.edits(".copier-answers.yml", "team: shop-team", f"team: {row}")
    done = repo.rung("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--like" in done.stdout


ELSEWHERE: Rows[dict[str, str]] = {
    "another stage": {"stage: 1": "stage: 2"},
    "an unknown version": {"_commit: v0.1.0": "_commit: v9"},
    "a file of the template": {"_commit: v0.1.0": "_commit: v0.1.0:copier.yml"},
    "a tree": {"_commit: v0.1.0": "_commit: v0.1.0^{tree}"},
    "nothing of it": {"_commit: v0.1.0": "_commit: '0000000000000000000000000000000000000000'"},
    "a moved template": {"_src_path: /": "_src_path: /gone/"},
    "a relative template": {"_src_path: /": "_src_path: ./"},
    "a home": {"_src_path: /": "_src_path: ~nobody-here/"},
    "a url that nobody answers": {"_src_path: /": "_src_path: git+file:///nowhere/"},
    "an option as url": {"_src_path: /": "_src_path: git+--upload-pack=true/"},
    "a program as url": {"_src_path: /": "_src_path: git+ext::sh /"},
    "a short form": {"_src_path: /": "_src_path: 'gh:' #"},
}


@rows(ELSEWHERE)
def test_recorded_answers_that_lead_elsewhere(repo: Repo, row: dict[str, str]) -> None:
    for old, new in row.items():
        repo.edits(".copier-answers.yml", old, new)
    refuses(repo.person, "advance", "--yes", at=repo.folder)
    if "stage: 1" not in row:  # There is no newer version.
        refuses(repo.person, "upgrade", at=repo.folder)


def break_file(name: str, content: bytes) -> Callable[[Repo], None]:
    def broken(repo: Repo) -> None:
        file = repo.folder / ".git" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return broken


def git_file_to_nowhere(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git")
    (repo.folder / ".git").write_text("gitdir: /nowhere\n", encoding="utf-8")


def without_objects(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git" / "objects")
    (repo.folder / ".git" / "objects").mkdir()


def without_refs(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git" / "refs")


def empty_git(repo: Repo) -> None:
    shutil.rmtree(repo.folder / ".git")
    (repo.folder / ".git").mkdir()


def locked_by_a_folder(repo: Repo) -> None:
    (repo.folder / ".git" / "index.lock").mkdir()


BROKEN_REPOS: Rows[Callable[[Repo], None]] = {
    "HEAD of words": break_file("HEAD", b"what?\n"),
    "an empty HEAD": break_file("HEAD", b""),
    "HEAD to a branch that is not there": break_file("HEAD", b"ref: refs/heads/none\n"),
    "HEAD to a commit that is not there": break_file("HEAD", b"1" * 40 + b"\n"),
    "an index of words": break_file("index", b"what?\n"),
    "an empty config": break_file("config", b"[core\n"),
    "a newer format": break_file("config", b"[core]\n\trepositoryformatversion = 99\n"),
    "an unknown extension": break_file(
        "config", b"[core]\n\trepositoryformatversion = 1\n[extensions]\n\tnothing = 1\n"
    ),
    "bare": break_file("config", b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n"),
    "a worktree elsewhere": break_file(
        "config", b"[core]\n\trepositoryformatversion = 0\n\tworktree = /usr\n"
    ),
    "a worktree nowhere": break_file(
        "config", b"[core]\n\trepositoryformatversion = 0\n\tworktree = /nowhere\n"
    ),
    "a git file to nowhere": git_file_to_nowhere,
    "no objects": without_objects,
    "no refs": without_refs,
    "an empty git directory": empty_git,
    "a merge": break_file("MERGE_HEAD", b""),
    "a rebase": break_file("rebase-merge/done", b""),
    "a locked index": break_file("index.lock", b""),
    "an index locked by a folder": locked_by_a_folder,
}


@rows(BROKEN_REPOS)
def test_a_broken_repository(repo: Repo, row: Callable[[Repo], None]) -> None:
    row(repo)
    refuses(repo.person, "advance", "--yes", at=repo.folder)
    refuses(repo.person, "undo", at=repo.folder)


COMMANDS: Rows[tuple[str, ...]] = {
    "an unknown command": ("nwe",),
    "an unknown option": ("new", "shop", "--colour"),
    "an option without a value": ("new", "shop", "--data"),
    "a short option": ("new", "-x"),
    "no place": ("new",),
    "two places": ("new", "a", "b"),
    "a control in an option": ("new", "shop", "--\x1b[31m"),
    "a control in a command": ("\x1b]0;title\x07",),
    "not utf-8": (SURROGATE,),
    "a stage in words": ("advance", "--yes", "--to=two"),
    "a huge stage": ("advance", "--yes", f"--to={'9' * 5000}"),
    "no terminal": ("advance",),
    "no project": ("advance", "--yes"),
    "no folder": ("advance", "--yes", "nowhere"),
    "a control in a path": ("advance", "--yes", "\x1b[2J"),
    "a path not utf-8": ("status", SURROGATE),
    "a long path": ("status", "a" * 5000),
    "a file": ("status", "/etc/hostname"),
    "a device": ("status", "/dev/null"),
    "the root": ("status", "/"),
    "nothing": ("status", ""),
    "undo without a project": ("undo",),
    "undo of nothing": ("undo", "nowhere"),
    "an upgrade to an option": ("upgrade", "--ref=--help"),
    "a stage of data": ("upgrade", "--data=stage=2"),
    "an endless number of words": ("status", *(["x"] * 2000)),
}


@rows(COMMANDS)
def test_a_command_line(person: Person, row: tuple[str, ...]) -> None:
    refuses(person, *row)


EXPLAINED: Rows[tuple[str, tuple[str, ...]]] = {
    "completion for a named shell": ("takes no value", ("--install-completion", "zsh")),
    "completion and a command": ("takes no value", ("--show-completion", "new", "shop")),
    "an option of new without a value": ("See rung new --help.", ("new", "--stage")),
    "a stage without its option": ("To name a stage: rung advance --to 2", ("advance", "2")),
    "an option of a command's command": ("See rung fleet upgrade", ("fleet", "upgrade", "--ref")),
    "a fleet that cannot be fetched": ("No repo can be read", ("fleet", "http://127.0.0.1:9/x")),
}


@rows(EXPLAINED)
def test_a_command_line_is_explained(person: Person, row: tuple[str, tuple[str, ...]]) -> None:
    person.environment["HOME"] = str(person.desk)  # The shell would write its own files there.
    said, words = row
    assert said in refuses(person, *words)


STAGES: Rows[tuple[str, str]] = {
    "too late": ("There is no stage 9", "9"),
    "too early": ("There is no stage 0", "0"),
    "the same": ("is at stage 1 (foundation) already", "1"),
    "possible, but nobody can be asked": ("needs a terminal", "2"),
}


@rows(STAGES)
def test_a_wrong_stage_is_refused_before_any_question(repo: Repo, row: tuple[str, str]) -> None:
    said, stage = row
    assert said in refuses(repo.person, "advance", f"--to={stage}", at=repo.folder)


REFS: Rows[str] = {
    "an option": "--help",
    "nothing": "nothing",
    "a range": "v0.1.0..main",
    "a file": "v0.1.0:copier.yml",
    "a newline": "v0.1.0\nx",
    "an escape": "\x1b[31m",
    "not utf-8": SURROGATE,
    "a glob": "v*",
    "a date": "main@{1 week ago}",
    "long": "a" * 5000,
    "a path": "../../x",
}


@rows(REFS)
def test_a_version_of_the_template(repo: Repo, row: str) -> None:
    refuses(repo.person, "upgrade", f"--ref={row}", at=repo.folder)


NOWHERE = "/nowhere/at/all"

# Each of these names a place or a mode. None of them may change anything.
MISLEADING = {
    **dict.fromkeys(
        (
            "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ATTR_SOURCE", "GIT_COMMON_DIR", "GIT_CONFIG",
            "GIT_DIR", "GIT_EDITOR", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF", "GIT_GRAFT_FILE",
            "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PAGER", "GIT_PREFIX",
            "GIT_REPLACE_REF_BASE", "GIT_SEQUENCE_EDITOR", "GIT_SHALLOW_FILE", "GIT_TEMPLATE_DIR",
            "GIT_TRACE2_EVENT", "GIT_WORK_TREE", "PGDATA", "PGHOST", "PGPASSFILE", "PGSERVICEFILE",
            "PGSYSCONFDIR", "PIP_CONFIG_FILE", "PIP_PREFIX", "PIP_TARGET", "UV", "UV_CONFIG_FILE",
            "UV_ENV_FILE", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
            "UV_PYTHON_INSTALL_DIR", "UV_TOOL_DIR", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY",
            "VIRTUAL_ENV", "PAGER", "EDITOR", "CDPATH",
        ),
        NOWHERE,
    ),
    **dict.fromkeys(
        (
            "GIT_FLUSH", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_IMPLICIT_WORK_TREE",
            "GIT_LITERAL_PATHSPECS", "GIT_NO_REPLACE_OBJECTS", "GIT_NOGLOB_PATHSPECS",
            "GIT_OPTIONAL_LOCKS", "GIT_QUARANTINE_PATH", "GIT_TRACE", "GIT_TRACE_CURL",
            "GIT_TRACE_PACKET", "GIT_TRACE_PERFORMANCE", "GIT_TRACE_SETUP", "PIP_DRY_RUN",
            "PIP_NO_DEPS", "PIP_REQUIRE_VIRTUALENV", "PIP_USER", "UV_FROZEN", "UV_ISOLATED",
            "UV_LOCKED", "UV_NO_CONFIG", "UV_NO_SYNC", "UV_OFFLINE", "UV_PREVIEW",
        ),
        "1",
    ),
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_CONFIG_COUNT": "words",
    "GIT_CONFIG_PARAMETERS": "'core.worktree'='/nowhere'",
    "GIT_DEFAULT_HASH": "sha256",
    "GIT_DEFAULT_REF_FORMAT": "reftable",
    "GIT_DIFF_OPTS": "--unified=0",
    "GIT_MERGE_VERBOSITY": "5",
    "GIT_PROTOCOL": "version=9",
    "GIT_REFLOG_ACTION": "words",
    "GIT_REF_PARANOIA": "1",
    "GIT_SSL_NO_VERIFY": "1",
    "UV_EXCLUDE_NEWER": "2001-01-01",
    "UV_FORK_STRATEGY": "words",
    "UV_PRERELEASE": "words",
    "UV_RESOLUTION": "words",
    "PGPORT": "9",
    "PGSSLMODE": "verify-full",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "words",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "no_proxy": "words",
    "TMPDIR": NOWHERE,
    "TERM": "words",
    "COLUMNS": "words",
    "LINES": "-1",
    "LANGUAGE": "de",
    "LC_MESSAGES": "de_DE.UTF-8",
    "LC_ALL": "xx_XX.words",
    "PYTHONWARNINGS": "error",
    "LESSOPEN": "words",
    "_RUNG_COMPLETE": "complete_bash",
}  # fmt: skip


@rows({name: {name: value} for name, value in MISLEADING.items()})
def test_a_misleading_variable(repo: Repo, row: dict[str, str]) -> None:
    told = repo.rung("status", "--json").stdout
    repo.person.environment |= row
    with repo.person.leaving_no_trace():
        done = repo.rung("status", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    assert not Path(NOWHERE).exists()


def uv_that_notes_its_variables(person: Person) -> Path:
    uv = person.temporary.parent / "bin" / "uv"
    uv.parent.mkdir()
    noted = person.temporary.parent / "noted"
    uv.write_text(f'#!/bin/sh\nenv > {noted}\necho "# locked" > uv.lock\n', encoding="utf-8")
    uv.chmod(0o755)
    person.environment["PATH"] = f"{uv.parent}{os.pathsep}{person.environment['PATH']}"
    return noted


def test_all_misleading_variables_together_change_nothing(
    person: Person, repo: Repo, growing_template: Path
) -> None:
    plain = repo.copied_to(person.desk / "plain")
    plain.advances("--commit")
    noted = uv_that_notes_its_variables(person)
    person.environment |= MISLEADING
    done = person.types("new", "inn/shop", "--template", growing_template)
    assert (done.returncode, done.stderr) == (0, "")
    repo.advances("--commit")
    for name, value in MISLEADING.items():
        if name.startswith(("UV", "VIRTUAL_ENV")):
            assert f"{name}={value}" not in noted.read_text(encoding="utf-8").splitlines()
        person.environment.pop(name)
    trees = [git("rev-parse", "HEAD^{tree}", cwd=shop.folder) for shop in (repo, plain)]
    assert trees[0] == trees[1]
    inn = Repo(person, person.desk / "inn" / "shop")
    repo.git("checkout", "--quiet", "HEAD^")
    assert inn.git("rev-parse", "HEAD^{tree}") == repo.git("rev-parse", "HEAD^{tree}")
    assert inn.status() == []


def evil(program: Path) -> dict[str, str]:
    return {
        "core.fsmonitor": str(program),
        "core.hooksPath": str(program.parent),
        "core.sshCommand": str(program),
        "core.pager": str(program),
        "core.editor": str(program),
        "diff.external": str(program),
        "filter.x.clean": str(program),
        "filter.x.smudge": str(program),
        "filter.x.process": str(program),
        "filter.x.required": "true",
        "gpg.program": str(program),
        "commit.gpgSign": "true",
        "uploadpack.packObjectsHook": str(program),
        "alias.status": f"!{program}",
        "credential.helper": str(program),
    }


@pytest.mark.parametrize("command", ["new", "status", "advance", "upgrade"])
def test_no_program_of_a_templates_own_settings_runs(
    repo: Repo, own_growing_template: Path, command: str
) -> None:
    ran = repo.person.temporary.parent / "ran"
    program = repo.person.temporary.parent / "programs" / "post-checkout"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    (own_growing_template / ".gitattributes").write_text("* filter=x\n", encoding="utf-8")
    git("add", "--all", cwd=own_growing_template)
    git("commit", "--quiet", "--message=Attributes", cwd=own_growing_template)
    git("tag", "v0.2.0", cwd=own_growing_template)
    for key, value in evil(program).items():
        git("config", key, value, cwd=own_growing_template)
    # Otherwise git trusts its index and does not read the file.
    os.utime(own_growing_template / "copier.yml")
    words = {
        "new": ("new", repo.person.desk / "inn", "--template", own_growing_template),
        "advance": ("advance", "--yes"),
    }.get(command, (command,))
    done = repo.rung(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert not ran.exists()


def test_a_user_without_a_home_has_no_uv_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "UV", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert find_uv() is None


def test_a_fleet_is_read_without_an_option_of_git_2_36(repo: Repo) -> None:
    old = repo.person.temporary.parent / "bin" / "git"
    old.parent.mkdir()
    old.write_text(
        '#!/bin/sh\nfor word; do [ "$word" = --batch-command ] && exit 129; done\n'
        f'exec {shutil.which("git")} "$@"\n',
        encoding="utf-8",
    )
    old.chmod(0o755)
    repo.person.environment["PATH"] = f"{old.parent}{os.pathsep}{repo.person.environment['PATH']}"
    done = repo.rung("fleet", ".", "--min-stage=1")
    assert done.returncode == 0, done.stderr


FENCED: Rows[tuple[str, ...]] = {
    "new": ("new", "../inn"),
    "status": ("status",),
    "a step": ("advance", "--yes", "--commit"),
    "an undo": ("undo",),
    "the doctor": ("doctor",),
    "a fleet": ("fleet", "."),
}


@rows(FENCED)
def test_a_git_that_would_ignore_the_fence_is_refused(repo: Repo, row: tuple[str, ...]) -> None:
    old = repo.person.temporary.parent / "bin" / "git"
    old.parent.mkdir()
    old.write_text(
        '#!/bin/sh\n[ "$1" = version ] && { echo "git version 2.30.2"; exit; }\n'
        f'exec {shutil.which("git")} "$@"\n',
        encoding="utf-8",
    )
    old.chmod(0o755)
    repo.person.environment["PATH"] = f"{old.parent}{os.pathsep}{repo.person.environment['PATH']}"
    said = refuses(repo.person, *row, at=repo.folder)
    assert "git version 2.30.2 is too old: it would run programs" in said
    assert "Rung needs 2.31 or later" in said


def test_a_typed_byte_that_is_not_utf8_is_no_yes(repo: Repo) -> None:
    repo.person.environment["PYTHONIOENCODING"] = "utf-8:strict"
    with repo.person.at_a_terminal("advance", "shop") as terminal:
        terminal.wait_for("Advance to stage 2")
        terminal.press("\udcff\r")
        assert terminal.wait_for_the_end() == 0, terminal.shown
    assert repo.status() == []


@pytest.mark.parametrize("command", ["status", "advance", "upgrade"])
def test_a_project_of_another_copier_template_is_not_called_broken(
    repo: Repo, command: str
) -> None:
    repo.write(".copier-answers.yml", "_commit: v1.2\n_src_path: gh:acme/library\nname: x\n")
    repo.commit()
    line = refuses(repo.person, command, at=repo.folder)
    assert "comes from another template than Rung's" in line


def test_an_interpreter_that_stays_open_is_no_bug(repo: Repo) -> None:
    repo.person.environment["PYTHONINSPECT"] = "1"
    assert repo.rung("status").stderr == ""


@rows({name: name for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE")})
def test_a_date_that_git_cannot_read_is_named(repo: Repo, row: str) -> None:
    repo.person.environment[row] = "words"
    line = refuses(repo.person, "advance", "--yes", "--commit", at=repo.folder)
    assert row in line
    assert row in refuses(repo.person, "new", "inn")


@rows({name: name for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME")})
def test_a_name_that_git_cannot_use_is_named(repo: Repo, row: str) -> None:
    repo.person.environment[row] = " "
    line = refuses(repo.person, "advance", "--yes", "--commit", at=repo.folder)
    assert f"Set or unset {row}." in line
    assert "git config" not in line


FETCHES: Rows[tuple[str, str]] = {
    "a key that is refused": (
        "echo 'git@example.invalid: Permission denied (publickey).' >&2; exit 255",
        "Permission denied (publickey)",
    ),
    "a host that is not there": (
        "echo 'ssh: Could not resolve hostname example.invalid' >&2; exit 255",
        "Could not resolve hostname",
    ),
}


@rows(FETCHES)
def test_a_template_that_cannot_be_fetched_names_the_cause(
    person: Person, row: tuple[str, str]
) -> None:
    program, said = row
    ssh = person.temporary.parent / "ssh"
    ssh.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    ssh.chmod(0o755)
    person.environment["GIT_SSH_COMMAND"] = str(ssh)
    line = refuses(person, "new", "shop", "--template=ssh://git@example.invalid/rung.git")
    assert said in line


COPIERS_SETTINGS = {"not yaml": "[[[", "a list": "- a\n", "a wrong type": "trust: 7\n"}


@rows(COPIERS_SETTINGS)
def test_broken_settings_of_copier_are_named(person: Person, row: str) -> None:
    file = person.temporary.parent / "settings.yml"
    file.write_text(row, encoding="utf-8")
    person.environment["COPIER_SETTINGS_PATH"] = str(file)
    assert "Copier's settings cannot be read" in refuses(person, "new", "shop")


def test_a_persons_settings_of_copier_answer_no_question_of_a_step(repo: Repo) -> None:
    file = repo.person.temporary.parent / "settings.yml"
    file.write_text("defaults: {pooler: rds_proxy, replica_routing: true}\n", encoding="utf-8")
    repo.person.environment["COPIER_SETTINGS_PATH"] = str(file)
    assert "pooler: pgbouncer is the default" in repo.advances()
    assert repo.is_advanced()
    assert repo.answers()["replica_routing"] is False


@pytest.mark.parametrize("command", ["new", "status", "--help", "--version"])
def test_an_output_that_cannot_be_written_is_reported(repo: Repo, command: str) -> None:
    words = {"new": ("new", "../inn"), "status": ("status",)}.get(command, (command,))
    with repo.person.leaving_no_trace():
        done = repo.person.runs(
            "sh", "-c", 'exec "$@" >/dev/full', "sh", RUNG, *words, at=repo.folder
        )
        assert "No space left on device" in refused(done, 1)


@pytest.mark.parametrize("command", ["advance", "upgrade"])
def test_a_step_whose_output_cannot_be_written_is_reported(
    repo: Repo, own_growing_template: Path, command: str
) -> None:
    (own_growing_template / "template" / "later.txt").write_text("later\n", encoding="utf-8")
    git("add", "--all", cwd=own_growing_template)
    git("commit", "--quiet", "--message=Later", cwd=own_growing_template)
    git("tag", "v0.2.0", cwd=own_growing_template)
    words = ("advance", "--yes") if command == "advance" else ("upgrade",)
    with repo.person.leaving_no_trace():
        done = repo.person.runs(
            "sh", "-c", 'exec "$@" >/dev/full', "sh", RUNG, *words, at=repo.folder
        )
        assert "No space left on device" in refused(done, 1)


CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>/dev/full")


def with_closed(repo: Repo, closed: str, *words: str) -> subprocess.CompletedProcess[str]:
    done = repo.person.runs("sh", "-c", f'exec "$@" {closed}', "sh", RUNG, *words, at=repo.folder)
    assert "bug of Rung" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


@rows({closed: closed for closed in CLOSED})
def test_closed_files(repo: Repo, row: str) -> None:
    with repo.person.leaving_no_trace():
        assert with_closed(repo, row, "status").returncode == 0
        assert with_closed(repo, row, "advance").returncode == 2
    assert with_closed(repo, row, "advance", "--yes").returncode == 0
    assert repo.is_advanced()
    assert with_closed(repo, row, "undo").returncode == 0
    assert repo.status() == []


@rows({closed: closed for closed in CLOSED})
def test_closed_files_of_a_new_project(repo: Repo, row: str) -> None:
    assert with_closed(repo, row, "new", "../inn").returncode == 0
    assert git("status", "--porcelain", cwd=repo.person.desk / "inn") == ""


SAID_BY_UV: Rows[str] = {
    "a dependency": "hint: The project `fastapi` depends on itself at an incompatible version.",
    "a dependency's dependency": "the name is shadowed by your project. Consider changing it.",
}


@rows(SAID_BY_UV)
def test_a_slug_that_is_a_package_of_the_service(person: Person, row: str) -> None:
    uv = person.temporary.parent / "uv"
    uv.write_text(f"#!/bin/sh\ncat >&2 <<'SAID'\n{row}\nSAID\nexit 1\n", encoding="utf-8")
    uv.chmod(0o755)
    person.environment["UV"] = str(uv)
    line = refuses(person, "new", "shop", "--data=project_slug=newcomer")
    assert "project_slug: newcomer is the name of a package" in line


@rows({name: name for name in ("fastapi", "redis", "botocore", "urllib3")})
def test_a_slug_that_is_a_package_of_any_stage(person: Person, row: str) -> None:
    line = refuses(person, "new", "shop", f"--data=project_slug={row}")
    assert f"project_slug: {row} is the name of a package that the service needs" in line
    assert f"--data project_slug={row}-service" in line


def test_a_repo_that_has_such_a_slug_already_is_advanced(repo: Repo) -> None:
    answers = repo.text(".copier-answers.yml")
    repo.write(".copier-answers.yml", answers.replace("project_slug: shop", "project_slug: redis"))
    repo.write("pyproject.toml", repo.text("pyproject.toml").replace('"shop"', '"redis"'))
    repo.commit()
    repo.advances()
    assert repo.answers()["project_slug"] == "redis"


def test_a_reader_that_leaves_early_is_no_failure(repo: Repo) -> None:
    repo.write("app/infra/wiring.py", repo.text("app/infra/wiring.py"))
    command = f"{RUNG} advance --dry-run --diff | head -n 1"
    with repo.person.leaving_no_trace():
        done = repo.person.runs("sh", "-c", command, at=repo.folder)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale whose encoding is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")],
        check=False,
        capture_output=True,
    )
    if made.returncode > 1:
        pytest.skip("localedef cannot make a locale here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


def test_a_locale_that_is_not_utf8(repo: Repo, latin_1: dict[str, str]) -> None:
    name = "Läden & Cafés 店"
    shop = repo.copied_to(repo.person.desk / name)
    shop.edits("README.md", "#", "# Für 店 und alle:")
    repo.person.environment |= latin_1
    done = repo.person.runs(RUNG, "advance", "--yes", "--commit", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert shop.status() == []
    assert shop.answers()["stage"] == 2
    new = repo.person.types("new", "inn", "--data", "team=Köche 店")
    assert (new.returncode, new.stderr) == (0, "")
    text = (repo.person.desk / "inn" / ".copier-answers.yml").read_text(encoding="utf-8")
    assert "Köche 店" in text


@pytest.mark.parametrize("encoding", ["C", "POSIX", "C.UTF-8", ""])
def test_a_plain_locale(repo: Repo, encoding: str) -> None:
    shop = repo.copied_to(repo.person.desk / "Läden 店")
    repo.person.environment["LC_ALL"] = encoding
    shop.advances()
    assert shop.is_advanced()


def test_two_at_once_into_one_place_make_one_whole_project(person: Person) -> None:
    started = [person.starts("new", "shop", "--defaults") for _ in range(2)]
    done = [(*process.communicate(timeout=300), process.returncode) for process in started]
    assert sorted(code for *_, code in done) in ([0, 1], [0, 2]), done
    assert git("status", "--porcelain", cwd=person.desk / "shop") == ""
    assert person.leftovers() == ["shop"]


@pytest.mark.parametrize("attempt", range(5))
def test_two_at_once_into_one_empty_folder_leave_one_project_or_none(
    person: Person, attempt: int
) -> None:
    (person.desk / "shop").mkdir()
    started = [person.starts("new", "shop", "--defaults") for _ in range(2)]
    done = [(*process.communicate(timeout=300), process.returncode) for process in started]
    whole = [code for *_, code in done].count(0)
    assert whole <= 1
    if whole:
        assert git("status", "--porcelain", cwd=person.desk / "shop") == ""
    else:
        assert list((person.desk / "shop").iterdir()) == []


APPEARING: Rows[str] = {
    "a readme in a new folder": "mkdir shop; echo mine > shop/README.md",
    "a file in place of the folder": "echo mine > shop",
    "a link in place of the folder": "ln -s elsewhere shop",
    "a readme in the empty folder": "echo mine > empty/README.md",
    "a git in the empty folder": "git init --quiet empty",
    "an unrelated file in the empty folder": "echo mine > empty/mine",
}


@rows(APPEARING)
def test_files_that_appear_during_new_are_kept(person: Person, row: str) -> None:
    (person.desk / "empty").mkdir()
    uv = person.temporary.parent / "slow-uv"
    uv.write_text(
        f'#!/bin/sh\n(cd {person.desk} && {row})\necho "# locked" > uv.lock\n', encoding="utf-8"
    )
    uv.chmod(0o755)
    person.environment["UV"] = str(uv)
    refused(person.types("new", "empty" if "empty" in row else "shop"))
    found = sorted(
        str(path.relative_to(person.desk))
        for path in person.desk.rglob("*")
        if ".git" not in path.parts
    )
    subprocess.run(["sh", "-c", f"mkdir again again/empty; cd again && {row}"], cwd=person.desk,
                   check=True)  # fmt: skip
    again = person.desk / "again"
    wanted = sorted(
        str(path.relative_to(again)) for path in again.rglob("*") if ".git" not in path.parts
    )
    assert found == wanted


def test_new_inside_another_repository_says_so_and_names_the_option_no_git(person: Person) -> None:
    git("init", "--quiet", cwd=person.desk)
    done = person.types("new", "services/shop")
    assert done.returncode == 0
    assert f"a git repository inside the repository {person.desk}" in done.stderr
    assert "--no-git" in done.stderr
    assert person.types("new", "services/inn", "--no-git").stderr == ""


def test_a_shallow_clone_as_template_is_told_how_to_fetch_the_rest(
    repo: Repo, own_growing_template: Path
) -> None:
    for version in ("v0.2.0", "v0.3.0"):
        (own_growing_template / "template" / "later.txt").write_text(version, encoding="utf-8")
        git("add", "--all", cwd=own_growing_template)
        git("commit", "--quiet", f"--message={version}", cwd=own_growing_template)
        git("tag", version, cwd=own_growing_template)
    shallow = own_growing_template.parent / "shallow"
    clone = ["clone", "--quiet", "--depth=1", own_growing_template.as_uri(), str(shallow)]
    git(*clone, cwd=repo.person.desk)
    line = refuses(repo.person, "upgrade", f"--template={shallow}", at=repo.folder)
    assert "git fetch --unshallow" in line
    git("fetch", "--quiet", "--depth=1", "origin", "tag", "v0.1.0", cwd=shallow)
    line = refuses(repo.person, "upgrade", f"--template={shallow}", at=repo.folder)
    assert "is a shallow clone" in line
    assert "git fetch --unshallow" in line


@pytest.mark.parametrize("name", ["shop", "my shop"])
def test_a_repository_of_another_user_is_explained(repo: Repo, name: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    repo = Repo(repo.person, repo.folder.rename(repo.person.desk / name))
    for path in (repo.folder, *repo.folder.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    line = refuses(repo.person, "advance", "--yes", at=repo.folder)
    assert f"git config --global --add safe.directory {shlex.quote(str(repo.folder))}" in line
    repo.person.environment |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(repo.folder),
    }
    assert repo.rung("status").returncode == 0


EMPTY: Rows[tuple[str, ...]] = {
    "a place": ("new", ""),
    "a template": ("new", "../inn", "--template="),
    "an answer": ("new", "../inn", "--data", ""),
    "a project to advance": ("advance", "--yes", ""),
    "a project to undo": ("undo", ""),
    "a version": ("upgrade", "--ref", ""),
    "a fleet": ("fleet", ""),
    "a command": ("",),
}


@rows(EMPTY)
def test_an_empty_word_means_neither_this_folder_nor_a_default(
    repo: Repo, row: tuple[str, ...]
) -> None:
    line = refuses(repo.person, *row, at=repo.folder)
    assert f"There is an empty word after {['rung', *row][-1] or ['rung', *row][-2]}. " in line


def test_a_home_that_the_shell_did_not_fill_in_is_no_folder(person: Person) -> None:
    (person.desk / "home").mkdir()
    (person.desk / "home" / "answers.yml").write_text("team: tea\n", encoding="utf-8")
    person.environment["HOME"] = str(person.desk / "home")
    done = person.types("new", "~/shop", "--answers=~/answers.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"    cd {person.desk}/home/shop\n" in done.stdout
    assert person.leftovers() == ["home"]
    assert "team: tea\n" in (person.desk / "home/shop/.copier-answers.yml").read_text("utf-8")


def test_a_folder_that_looks_like_an_option_is_named_as_a_folder(person: Person) -> None:
    done = person.types("new", "./-shop", "--defaults")
    assert (done.returncode, done.stderr) == (0, "")
    assert "    cd ./-shop\n" in done.stdout
