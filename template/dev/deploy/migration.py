# Rung's file: advancing to another stage may change it.
"""Runs the migration as a separate task of the new revision, before any copy has it."""

from typing import Any

from botocore.exceptions import ClientError

from dev.deploy.programs import Stop, say, until

STARTED_BY = "migration"
LONGEST = 6 * 60 * 60
LAST_LINES = 20


def migrate(ecs: Any, logs: Any, release: dict[str, Any]) -> None:
    """If an earlier run was killed, its task may still run. Then this waits for that task."""
    definition = release["task_definition"]
    task = running(ecs, release) or run_task(
        ecs, release, release["migration"], taskDefinition=definition, startedBy=STARTED_BY
    )
    stopped = ended(ecs, release["cluster"], task)
    app = app_of(stopped["containers"])
    if app.get("exitCode") == 0:
        return
    why = app.get("reason") or stopped.get("stoppedReason") or "no reason given"
    code = f"exit code {app['exitCode']}" if "exitCode" in app else "it never ran"
    raise Stop(
        "\n".join(log(logs, release, task))
        + f"\nThe migration failed: {code} ({why}). No copy has the new revision.\n"
        "Correct it and commit, then run the same command again."
    )


def app_of(containers: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in containers if one["name"] == "app")


def running(ecs: Any, release: dict[str, Any]) -> str | None:
    cluster = release["cluster"]
    # It lists only tasks that run. With startedBy, ECS refuses any other filter.
    found = ecs.list_tasks(cluster=cluster, startedBy=STARTED_BY)
    if not found["taskArns"]:
        return None
    task = ecs.describe_tasks(cluster=cluster, tasks=found["taskArns"])["tasks"][0]
    if task["taskDefinitionArn"] != release["task_definition"]:
        raise Stop(
            f"A migration of another revision still runs: {task['taskDefinitionArn']}. "
            "Wait for its end, then run the same command again."
        )
    say("Its migration still runs: waiting for it")
    return str(task["taskArn"])


def run_task(ecs: Any, release: dict[str, Any], command: list[str], **asked: Any) -> str:
    """Runs a command once in a separate task, whose ARN this returns."""
    configuration = {
        "subnets": release["subnets"],
        "securityGroups": [release["security_group"]],
        "assignPublicIp": "ENABLED",
    }
    answer = ecs.run_task(
        cluster=release["cluster"],
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": configuration},
        overrides={"containerOverrides": [{"name": "app", "command": command}]},
        **asked,
    )
    if answer["failures"] or not answer["tasks"]:
        reasons = ", ".join(one.get("reason", "?") for one in answer["failures"])
        raise Stop(
            f"ECS cannot run the {asked['startedBy']} now: {reasons}. Run the same command again."
        )
    return str(answer["tasks"][0]["taskArn"])


def ended(ecs: Any, cluster: str, task: str) -> dict[str, Any]:
    before = ""
    for _ in until(LONGEST):
        found = ecs.describe_tasks(cluster=cluster, tasks=[task])["tasks"]
        if not found:
            raise Stop("ECS no longer lists the migration's task. Run the same command again.")
        status = found[0]["lastStatus"]
        if status == "STOPPED":
            return dict(found[0])
        if status != before:
            say(f"The migration is {status.lower()}")
        before = status
    raise Stop(
        f"The migration still runs after {LONGEST // 3600} hours: {task}. "
        "To wait for it again, run the same command."
    )


def log(logs: Any, release: dict[str, Any], task: str) -> list[str]:
    stream = f"app/app/{task.rpartition('/')[2]}"
    try:
        found = logs.get_log_events(
            logGroupName=release["logs"], logStreamName=stream, limit=LAST_LINES
        )
    except ClientError:
        return []  # The task ended before it logged a line.
    return [one["message"] for one in found["events"]]
