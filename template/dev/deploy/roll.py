# Rung's file: advancing to another stage may change it.
"""Gives every copy a revision, and checks afterwards that this revision is in service."""

from typing import Any

from dev.deploy.programs import Stop, say, until

LONGEST = 30 * 60
NOT_DONE = "The previous copies still serve. Correct this, commit, and run the same command again."


def roll(ecs: Any, release: dict[str, Any], revision: str) -> None:
    # At 0 copies a new number alone begins no deployment, so nothing would judge the new copies.
    first = service_of(ecs, release)["desiredCount"] == 0
    begin = {"desiredCount": release["copies"], "forceNewDeployment": True} if first else {}
    ecs.update_service(
        cluster=release["cluster"], service=release["service"], taskDefinition=revision, **begin
    )
    before = ""
    for _ in until(LONGEST):
        service = service_of(ecs, release)
        primary = primary_of(service)
        if primary["taskDefinition"] != revision:
            former = short(primary["taskDefinition"])
            gone = f"ECS went back to {former}: the new revision is not in service."
            raise Stop("\n".join([*why(ecs, release, service, revision), gone, NOT_DONE]))
        if primary["rolloutState"] == "FAILED":
            said = [*why(ecs, release, service, revision), "The rollout failed.", NOT_DONE]
            raise Stop("\n".join(said))
        wanted, runs = primary["desiredCount"], primary["runningCount"]
        if primary["rolloutState"] == "COMPLETED" and runs >= wanted:
            return
        progress = f"{runs} of {wanted} new copies run; {primary.get('failedTasks', 0)} failed"
        if progress != before:
            say(progress)
        before = progress
    raise Stop(f"Not done after {LONGEST // 60} minutes: {before}. Run the same command again.")


def service_of(ecs: Any, release: dict[str, Any]) -> dict[str, Any]:
    found = ecs.describe_services(cluster=release["cluster"], services=[release["service"]])
    if not found["services"] or found["services"][0]["status"] != "ACTIVE":
        raise Stop(f"The service {release['service']} is not there. Run `make deploy` first.")
    return dict(found["services"][0])


def primary_of(service: dict[str, Any]) -> dict[str, Any]:
    """The deployment that ECS works towards. After a rollback by ECS it is the previous one."""
    return next(one for one in service["deployments"] if one["status"] == "PRIMARY")


def why(ecs: Any, release: dict[str, Any], service: dict[str, Any], revision: str) -> list[str]:
    ours = [one for one in service["deployments"] if one["taskDefinition"] == revision]
    said = [one["rolloutStateReason"] for one in ours if one.get("rolloutStateReason")]
    cluster, name = release["cluster"], release["service"]
    stopped = ecs.list_tasks(cluster=cluster, serviceName=name, desiredStatus="STOPPED")["taskArns"]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=stopped[:10])["tasks"] if stopped else []
    for one in tasks:
        if one["taskDefinitionArn"] == revision:
            exits = [
                f"{container['name']} ended with {container['exitCode']}"
                for container in one["containers"]
                if container.get("exitCode")
            ]
            said.append(", ".join([one.get("stoppedReason", "A copy stopped"), *exits]))
    return list(dict.fromkeys(said))


def previous(ecs: Any, release: dict[str, Any]) -> str:
    """The revision of the last deployment that succeeded with another one than runs now."""
    cluster, service = release["cluster"], release["service"]
    now = primary_of(service_of(ecs, release))["taskDefinition"]
    done = ecs.list_service_deployments(cluster=cluster, service=service, status=["SUCCESSFUL"])
    newest = sorted(done["serviceDeployments"], key=lambda one: one["createdAt"], reverse=True)
    for one in newest:
        arns = [one["targetServiceRevisionArn"]]
        found = ecs.describe_service_revisions(serviceRevisionArns=arns)["serviceRevisions"]
        if found and found[0]["taskDefinition"] != now:
            return str(found[0]["taskDefinition"])
    raise Stop(f"No release before {short(now)} is known. Name a revision: make rollback TO=…")


def short(revision: str) -> str:
    """shop-production:41"""
    return revision.rpartition("/")[2]
