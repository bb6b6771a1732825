# Rung's file: advancing to another stage may change it.
"""`make deploy`, `make deploy-plan` of a new environment, `make rollback`: their steps in order."""

import os
from pathlib import Path
from typing import Any

from dev.deploy import checks, console, destroy, environment, guard, image
from dev.deploy.aws import Aws, explained
from dev.deploy.environment import Environment
from dev.deploy.migration import migrate
from dev.deploy.programs import Stop, need_terraform, say
from dev.deploy.roll import previous, roll, short
from dev.deploy.state import State


def run(command: str, folder: Path) -> None:
    need_terraform()
    read = environment.read(folder)
    with explained():
        match command:
            case "deploy":
                deploy(read)
            case "plan":
                begin(read)
                guard.plan(folder, os.environ.get("IMAGE", ""))
            case "rollback":
                rollback(read, os.environ.get("TO", ""))
            case "console":
                console.open_one(*deployed(read))
            case "destroy":
                destroy.destroy(read, lambda: begin(read, released=True))
            case _:
                raise Stop(f"There is no command {command}.")


def deploy(read: Environment) -> None:
    """An earlier run may have been killed after any step, so each step looks first."""
    say("1/6 Checks")
    commit = checks.commit(read.folder)
    state = State(read)
    aws, account = state.aws, state.account
    checks.certificate(aws, read, account)
    state.refuse_lock()
    ecr = aws.client("ecr")
    built = image.exists(ecr, read.id, commit)
    program = "" if built else image.builder()

    say(f"2/6 Plan of {read.id} in {read.region}, account {account}")
    state.make_bucket()
    state.initialise()
    tagged = f"{image.repository_of(account, read.region, read.id)}:{commit}"
    guard.plan(read.folder, tagged)

    say("3/6 Apply")
    guard.apply(read.folder, again=f"make deploy {read.make}")
    service = state.outputs()
    release = service["release"]

    say(f"4/6 Image {tagged}")
    if built:
        say("It is there already")
    else:
        image.build_and_push(ecr, program, tagged, read.architecture)

    revision = release["task_definition"]
    ecs = aws.client("ecs")
    say(f"5/6 Migration, with {short(revision)}")
    migrate(ecs, aws.client("logs"), release)

    say(f"6/6 Roll to {short(revision)}")
    roll(ecs, release, revision)
    say(f"{short(revision)} is in service at {service['address']}.")
    say(f"If it is new, commit {read.folder}/.terraform.lock.hcl.")


def rollback(read: Environment, to: str) -> None:
    if to and not to.isdecimal():
        raise Stop("TO is the number of a revision: make rollback TO=41")
    aws, release = deployed(read)
    ecs = aws.client("ecs")
    revision = f"{release['task_definition'].rpartition(':')[0]}:{to}" if to else ""
    revision = revision or previous(ecs, release)
    say(f"Rolling to {short(revision)}. The database stays at its migration.")
    roll(ecs, release, revision)
    say(f"{short(revision)} is in service.")


def begin(read: Environment, released: bool = False) -> None:
    """Prepares for a plan: the state exists, and nobody else holds its lock."""
    state = State(read)
    state.refuse_lock()
    if released:
        state.need_bucket()
    else:
        state.make_bucket()
    state.initialise()


def deployed(read: Environment) -> tuple[Aws, dict[str, Any]]:
    """Ignores the lock, because a rollback must be possible while a release hangs."""
    state = State(read)
    state.need_bucket()
    state.initialise()
    return state.aws, state.outputs()["release"]
