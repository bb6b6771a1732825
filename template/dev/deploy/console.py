# Rung's file: advancing to another stage may change it.
"""`make console`: a shell in a separate task, because ECS cannot enter a read-only copy."""

import json
import shutil
import signal
import subprocess
from typing import Any

from dev.deploy.aws import Aws, sentence
from dev.deploy.migration import app_of, run_task
from dev.deploy.programs import Stop, say, until
from dev.deploy.roll import primary_of, service_of

PLUGIN = "session-manager-plugin"
HOUR = 60 * 60
KEPT = {"taskRoleArn", "executionRoleArn", "networkMode", "volumes", "cpu", "memory"}
KEPT |= {"requiresCompatibilities", "runtimePlatform"}


def open_one(aws: Aws, release: dict[str, Any]) -> None:
    if not shutil.which(PLUGIN):
        raise Stop(f"Install AWS' {PLUGIN}: it connects the shell.")
    ecs = aws.client("ecs")
    definition = definition_for_a_shell(ecs, primary_of(service_of(ecs, release)))
    task = run_task(
        ecs,
        release,
        ["sleep", str(HOUR)],  # it ends itself, also when this program is killed
        taskDefinition=definition,
        startedBy="console",
        enableExecuteCommand=True,
    )
    try:
        say("Starting; the shell ends after an hour")
        enter(aws, ecs, release["cluster"], task)
    finally:
        ecs.stop_task(cluster=release["cluster"], task=task, reason="The console was left")
        ecs.deregister_task_definition(taskDefinition=definition)


def definition_for_a_shell(ecs: Any, primary: dict[str, Any]) -> str:
    found = ecs.describe_task_definition(taskDefinition=primary["taskDefinition"])["taskDefinition"]
    app = app_of(found["containerDefinitions"])
    made = ecs.register_task_definition(
        family=f"{found['family']}-console",
        containerDefinitions=[app | {"readonlyRootFilesystem": False}],
        **{name: found[name] for name in KEPT if name in found},
    )
    return str(made["taskDefinition"]["taskDefinitionArn"])


def enter(aws: Aws, ecs: Any, cluster: str, task: str) -> None:
    container = ready(ecs, cluster, task)
    session = ecs.execute_command(
        cluster=cluster, task=task, container="app", interactive=True, command="/bin/sh"
    )["session"]
    target = {"Target": f"ecs:{cluster}_{task.rpartition('/')[2]}_{container['runtimeId']}"}
    endpoint = aws.client("ssm").meta.endpoint_url
    about = (json.dumps(session), aws.region, "StartSession", "", json.dumps(target), endpoint)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the shell.
    subprocess.run([PLUGIN, *about], check=False)


def ready(ecs: Any, cluster: str, task: str) -> dict[str, Any]:
    for _ in until(300):
        found = ecs.describe_tasks(cluster=cluster, tasks=[task])["tasks"][0]
        if found["lastStatus"] == "STOPPED":
            why = sentence(f"The task stopped: {found.get('stoppedReason', 'no reason given')}")
            raise Stop(f"{why} Correct this, then run the same command again.")
        app = app_of(found["containers"])
        agents = {one["name"]: one["lastStatus"] for one in app.get("managedAgents", [])}
        if agents.get("ExecuteCommandAgent") == "RUNNING":
            return app
    raise Stop("The task did not become ready in 5 minutes. Run the same command again.")
