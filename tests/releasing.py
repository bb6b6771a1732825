"""An AWS to release to: moto, and a stub of what moto does not do truthfully (ECS, pushed images).

Terraform and Docker are stand-ins that ask the stub what to do, so that one list holds all events.
"""

import base64
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

ACCOUNT = "123456789012"
SERVICE = "arn:aws:ecs:eu-central-1:123456789012:service/shop-production/app"

PROGRAM = """\
#!{python} -SE
import json, os, signal, sys, urllib.request

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])

def ask(**about):
    request = urllib.request.Request("{url}/program", json.dumps(about).encode())
    return json.load(urllib.request.build_opener().open(request, timeout=300))

typed = sys.stdin.read() if "--password-stdin" in sys.argv else ""
name = os.path.basename(sys.argv[0])
about = {{"name": name, "parent": os.getppid(), "folder": os.getcwd()}}
answer = ask(arguments=sys.argv[1:], typed=typed, **about)
if answer.get("wait"):
    signal.sigwait([signal.SIGINT])
    ask(arguments=["has ended"], typed="", **about)
if answer.get("writes"):
    open(answer["writes"], "w").close()
sys.stdout.write(answer.get("says", ""))
sys.exit(answer.get("code", 0))
"""


def revision(number: int) -> str:
    return f"arn:aws:ecs:eu-central-1:{ACCOUNT}:task-definition/shop-production:{number}"


@dataclass
class Cloud:
    """ECS as its documentation describes it, for one service."""

    events: list[str] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    """The tags that were pushed."""
    platforms: list[str] = field(default_factory=list)
    """Of the images that were built."""
    planned: str = ""
    revisions: list[str] = field(default_factory=list)
    """The image of each registered revision, the first at 0."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    succeeded: list[str] = field(default_factory=list)
    desired: int = 0

    terraform: str = "1.11.4"
    plan: dict[str, Any] = field(default_factory=dict)
    migration: list[str] = field(default_factory=lambda: ["alembic", "upgrade", "head"])
    """The command that the module's output names."""
    exit_code: int = 0
    healthy: bool = True
    kill_at: str = ""
    kill_with: int = signal.SIGKILL
    pid: int = 0

    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of consoles, by ARN."""
    shells: list[list[str]] = field(default_factory=list)
    """What the plugin was started with."""
    stops: str = ""
    """Why a console's task ends before it is ready."""
    applied: list[list[str]] = field(default_factory=list)
    unprotected: str = ""
    """What overrides the module while Terraform destroys it."""

    def happens(self, event: str) -> bool:
        """Whether the release was sent its signal now."""
        self.events.append(event)
        if event != self.kill_at:
            return False
        self.kill_at = ""
        os.kill(self.pid, self.kill_with)
        return True

    # Programs

    def program(
        self, name: str, arguments: list[str], parent: int, typed: str, folder: str
    ) -> dict[str, Any]:
        self.pid = parent
        event = name if name == PLUGIN else f"{name} {arguments[0]}"
        if event == "terraform version":
            return {"says": json.dumps({"terraform_version": self.terraform})}
        if event == "docker login":
            assert typed == "password"
        killed = self.happens(event)
        if killed and self.kill_with == signal.SIGINT:
            return {"wait": True, "code": 1}
        if killed:
            return {"code": 1}
        match event:
            case "terraform plan":
                self.planned = arguments[-1].removeprefix("-var=image=")
                return {"writes": "checked.tfplan"}
            case "terraform show":
                return {"says": json.dumps(self.plan)}
            case "terraform apply" if "-auto-approve" in arguments:
                self.applied.append(arguments)
            case "terraform apply":
                self.apply()
            case "terraform state":
                return {"says": "".join(f"module.service.{one}\n" for one in THERE)}
            case "terraform destroy":
                override = Path(folder, "../../deploy/aws/destroy_override.tf")
                self.unprotected = override.read_text(encoding="utf-8")
            case "session-manager-plugin":
                self.shells.append(arguments)
            case "terraform output":
                return {"says": json.dumps(self.output())}
            case "docker build":
                self.platforms += [one for one in arguments if one.startswith("--platform=")]
            case "docker push":
                self.images.add(arguments[-1].rpartition(":")[2])
        return {}

    def apply(self) -> None:
        if self.planned not in self.revisions[-1:]:
            self.revisions.append(self.planned)
        if not self.deployments:
            self.deploy(revision(1), state="COMPLETED")

    def output(self) -> dict[str, Any]:
        release = {"cluster": "shop-production", "service": "app", "copies": 2, "logs": "/app"}
        network = {"subnets": ["subnet-1"], "security_group": "sg-1"}
        newest = {"task_definition": revision(len(self.revisions)), "migration": self.migration}
        return {"address": "lb.example.com", "release": release | network | newest}

    # ECR

    def describe_images(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not self.revisions:
            return {"__type": "RepositoryNotFoundException"}
        tag = asked["imageIds"][0]["imageTag"]
        return {"imageDetails": []} if tag in self.images else {"__type": "ImageNotFoundException"}

    def get_authorization_token(self, _: dict[str, Any]) -> dict[str, Any]:
        token = base64.b64encode(b"AWS:password").decode()
        return {"authorizationData": [{"authorizationToken": token}]}

    # ECS: tasks

    def run_task(self, asked: dict[str, Any]) -> dict[str, Any]:
        made = asked["taskDefinition"]
        if asked["startedBy"] == "console":
            return self.run_console(made, asked)
        assert self.revisions[int(made.rpartition(":")[2]) - 1].rpartition(":")[2] in self.images
        assert asked["overrides"]["containerOverrides"] == [
            {"name": "app", "command": self.migration}
        ]
        return self._begun(asked, f"{len(self.tasks)}")

    def _begun(self, asked: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
        arn = f"{SERVICE.replace('service', 'task')}/{name}"
        self.tasks[arn] = {
            "taskArn": arn,
            "taskDefinitionArn": asked["taskDefinition"],
            "lastStatus": "PROVISIONING",
            "startedBy": asked["startedBy"],
            "containers": [{"name": "app"}],
            **more,
        }
        return {"tasks": [self.tasks[arn]], "failures": []}

    def list_tasks(self, asked: dict[str, Any]) -> dict[str, Any]:
        """With startedBy, ECS accepts no other filter. Without a status it lists those that run."""
        if asked.keys() > {"cluster", "startedBy"}:
            why = "cannot specify startedBy with other arguments"
            return {"__type": "InvalidParameterException", "message": why}
        stopped = asked.get("desiredStatus") == "STOPPED"
        return {
            "taskArns": [
                arn
                for arn, task in self.tasks.items()
                if (task["lastStatus"] == "STOPPED") == stopped
                and task["startedBy"] == asked.get("startedBy", "ecs-svc")
            ]
        }

    def describe_tasks(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Each call finds the task one step further."""
        for arn in asked["tasks"]:
            task = self.tasks[arn]
            if task["startedBy"] == "console":
                self.start_console(task)
            elif task["lastStatus"] == "RUNNING":
                task["lastStatus"] = "STOPPED"
                task["containers"][0]["exitCode"] = self.exit_code
            elif task["lastStatus"] == "PROVISIONING":
                task["lastStatus"] = "RUNNING"
        return {"tasks": [self.tasks[arn] for arn in asked["tasks"]], "failures": []}

    # ECS: a console

    def describe_task_definition(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = int(asked["taskDefinition"].rpartition(":")[2])
        app = {"name": "app", "image": self.revisions[number - 1], "readonlyRootFilesystem": True}
        return {
            "taskDefinition": {
                "taskDefinitionArn": revision(number),
                "family": "shop-production",
                "containerDefinitions": [app, {"name": "collector"}],
                "taskRoleArn": "arn:aws:iam::123456789012:role/app",
                "networkMode": "awsvpc",
                "cpu": "512",
                "memory": "1024",
                "requiresCompatibilities": ["FARGATE"],
                "revision": number,
            }
        }

    def register_task_definition(self, asked: dict[str, Any]) -> dict[str, Any]:
        arn = f"{revision(0).rpartition('/')[0]}/{asked['family']}:{len(self.definitions) + 1}"
        self.definitions[arn] = asked | {"status": "ACTIVE"}
        return {"taskDefinition": asked | {"taskDefinitionArn": arn}}

    def deregister_task_definition(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.definitions[asked["taskDefinition"]]["status"] = "INACTIVE"
        return {"taskDefinition": {"taskDefinitionArn": asked["taskDefinition"]}}

    def run_console(self, made: str, asked: dict[str, Any]) -> dict[str, Any]:
        assert self.definitions[made]["status"] == "ACTIVE"
        assert asked["overrides"]["containerOverrides"] == [
            {"name": "app", "command": ["sleep", "3600"]}
        ]
        enabled = asked["enableExecuteCommand"]
        return self._begun(asked, f"console{len(self.tasks)}", enableExecuteCommand=enabled)

    def start_console(self, task: dict[str, Any]) -> None:
        """The agent starts after its container, and never in a file system that is read-only."""
        [app] = task["containers"]
        [definition] = self.definitions[task["taskDefinitionArn"]]["containerDefinitions"]
        if self.stops:
            task |= {"lastStatus": "STOPPED", "stoppedReason": self.stops}
        elif task["lastStatus"] == "PROVISIONING":
            task["lastStatus"] = "RUNNING"
            agent = {"name": "ExecuteCommandAgent", "lastStatus": "PENDING"}
            app |= {"runtimeId": "7f-app", "managedAgents": [agent]}
        elif task["enableExecuteCommand"] and not definition["readonlyRootFilesystem"]:
            app["managedAgents"][0]["lastStatus"] = "RUNNING"

    def execute_command(self, asked: dict[str, Any]) -> dict[str, Any]:
        task = self.tasks[asked["task"]]
        [agent] = task["containers"][0].get("managedAgents", [{"lastStatus": "PENDING"}])
        if task["lastStatus"] != "RUNNING" or agent["lastStatus"] != "RUNNING":
            return {"__type": "TargetNotConnectedException"}
        assert asked["interactive"] is True
        assert asked["container"] == "app"
        session = {"sessionId": "ecs-1", "streamUrl": "wss://ssm", "tokenValue": "token"}
        return {"session": session}

    def stop_task(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.tasks[asked["task"]]["lastStatus"] = "STOPPED"
        return {"task": self.tasks[asked["task"]]}

    # ECS: the service

    def deploy(self, made: str, state: str = "IN_PROGRESS") -> None:
        for one in self.deployments:
            one["status"] = "ACTIVE"
        self.deployments.insert(
            0,
            {
                "id": f"ecs-svc/{len(self.events)}",
                "status": "PRIMARY",
                "taskDefinition": made,
                "desiredCount": self.desired,
                "runningCount": 0,
                "rolloutState": state,
            },
        )

    def update_service(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.desired = asked.get("desiredCount", self.desired)
        new = asked["taskDefinition"] != self.deployments[0]["taskDefinition"]
        if new or asked.get("forceNewDeployment"):
            self.deploy(asked["taskDefinition"])
        self.deployments[0]["desiredCount"] = self.desired
        return {"service": self.service()}

    def describe_services(self, _: dict[str, Any]) -> dict[str, Any]:
        """Returns the present state. Then the deployment goes one step further."""
        found = json.loads(json.dumps(self.service()))
        primary = self.deployments[0]
        if primary["rolloutState"] != "IN_PROGRESS":
            pass
        elif self.healthy or primary["taskDefinition"] in self.succeeded:
            primary |= {"rolloutState": "COMPLETED", "runningCount": self.desired}
            self.succeeded.append(primary["taskDefinition"])
            del self.deployments[1:]
        else:
            self.break_circuit(primary)
        return {"services": [found], "failures": []}

    def break_circuit(self, primary: dict[str, Any]) -> None:
        self.tasks[f"{SERVICE}/stopped"] = {
            "taskArn": f"{SERVICE}/stopped",
            "taskDefinitionArn": primary["taskDefinition"],
            "lastStatus": "STOPPED",
            "startedBy": "ecs-svc",
            "stoppedReason": "Essential container in task exited",
            "containers": [{"name": "app", "exitCode": 3}],
        }
        primary["rolloutState"] = "FAILED"
        primary["rolloutStateReason"] = "ECS deployment circuit breaker: tasks failed to start."
        if self.succeeded:
            self.deploy(self.succeeded[-1])

    def service(self) -> dict[str, Any]:
        return {
            "status": "ACTIVE",
            "desiredCount": self.desired,
            "taskDefinition": self.deployments[0]["taskDefinition"],
            "deployments": self.deployments,
        }

    def list_service_deployments(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "serviceDeployments": [
                {"targetServiceRevisionArn": made, "createdAt": 1_700_000_000 + i}
                for i, made in enumerate(self.succeeded)
            ]
        }

    def describe_service_revisions(self, asked: dict[str, Any]) -> dict[str, Any]:
        arns = asked["serviceRevisionArns"]
        return {"serviceRevisions": [{"taskDefinition": made} for made in arns]}


# Of stage 1, as far as `make destroy` must unprotect it.
THERE = (
    "aws_db_instance.main",
    "aws_ecr_repository.app",
    "aws_efs_file_system.files",
    "aws_lb.main",
)
PLUGIN = "session-manager-plugin"

OPERATIONS: dict[str, Callable[[Cloud, dict[str, Any]], dict[str, Any]]] = {
    "DescribeImages": Cloud.describe_images,
    "GetAuthorizationToken": Cloud.get_authorization_token,
    "DeregisterTaskDefinition": Cloud.deregister_task_definition,
    "DescribeTaskDefinition": Cloud.describe_task_definition,
    "ExecuteCommand": Cloud.execute_command,
    "RegisterTaskDefinition": Cloud.register_task_definition,
    "RunTask": Cloud.run_task,
    "StopTask": Cloud.stop_task,
    "ListTasks": Cloud.list_tasks,
    "DescribeTasks": Cloud.describe_tasks,
    "UpdateService": Cloud.update_service,
    "DescribeServices": Cloud.describe_services,
    "ListServiceDeployments": Cloud.list_service_deployments,
    "DescribeServiceRevisions": Cloud.describe_service_revisions,
}


class Answers(BaseHTTPRequestHandler):
    def __init__(self, cloud: Cloud, *arguments: Any) -> None:
        self.cloud = cloud
        super().__init__(*arguments)

    def do_POST(self) -> None:
        received = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/expired"):
            self.send_error_of_aws("ExpiredToken", "The security token is expired")
            return
        asked = json.loads(received)
        if self.path == "/program":
            answer = self.cloud.program(**asked)
        else:
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            answer = OPERATIONS[operation](self.cloud, asked)
            self.cloud.happens(operation)
        body = json.dumps(answer).encode()
        self.send_response(400 if "__type" in answer else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error_of_aws(self, code: str, message: str) -> None:
        error = f"<Code>{code}</Code><Message>{message}</Message>"
        body = f"<ErrorResponse><Error>{error}</Error></ErrorResponse>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Served:
    """The stub at an address, with programs that ask it."""

    def __init__(self, cloud: Cloud, programs: Path) -> None:
        self.cloud = cloud
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, cloud))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        programs.mkdir()
        for name in ("terraform", "docker", PLUGIN):
            (programs / name).write_text(PROGRAM.format(python=sys.executable, url=self.url))
            (programs / name).chmod(0o755)

    def __enter__(self) -> "Served":
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
