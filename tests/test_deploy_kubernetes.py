"""deploy/kubernetes of the generated repo: built, checked, and released to a stub."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Render
from variants import JOURNEYS, LONGEST, VARIANTS, Journey, described, variant_name

type Manifest = dict[str, Any]

# The oldest version that the page promises, and a newer one.
VERSIONS = ("1.30", "1.35")
KUBECTL = Path(sys.executable).with_name("kubectl")

# The operator makes these Services, and its pods are not ours to describe.
OF_THE_OPERATOR = {"postgres", "replica"}
EACH_DATABASE = ["python", "-m", "app.infra.module_databases.migrate"]
HOLD_DATA = ("PersistentVolumeClaim/files", "StatefulSet/sessions", "Cluster/database")


@cache
def built(environment: Path) -> dict[str, Manifest]:
    """Deployment/app and all others, as `kubectl apply` gets them."""
    done = subprocess.run(
        [KUBECTL, "kustomize", environment], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[Manifest] = list(yaml.safe_load_all(done.stdout))
    return {f"{one['kind']}/{unhashed(one)}": one for one in found}


def unhashed(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["name"]
    return re.sub(r"-[a-z0-9]{10}$", "", name) if manifest["kind"] == "ConfigMap" else name


def production(project: Path) -> dict[str, Manifest]:
    return built(project / "environments" / "production")


def pods(manifests: dict[str, Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, manifest in manifests.items():
        if template := manifest["spec"].get("template") if "spec" in manifest else None:
            yield name, template["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def problems(manifest: Manifest) -> list[str]:
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {error.message}")
    return found


@pytest.fixture(
    params=[
        pytest.param(one, marks=() if one in LONGEST else pytest.mark.slow, id=variant_name(one))
        for one in VARIANTS
    ]
)
def project(request: pytest.FixtureRequest, render: Render) -> Path:
    return render(request.param)


@pytest.fixture
def shop(render: Render) -> Path:
    return render(LONGEST[-1])


def test_kubernetes_knows_each_name(project: Path) -> None:
    checked = {
        name: problems(manifest)
        for name, manifest in production(project).items()
        if manifest["kind"] != "Cluster"
    }
    assert {"Deployment/app", "Job/migrate", "Service/app"} <= checked.keys()
    assert {name: found for name, found in checked.items() if found} == {}


def test_a_misspelt_name_is_found(shop: Path) -> None:
    text = json.dumps(production(shop)["Deployment/app"]).replace("maxSurge", "maxSurgee")
    assert "maxSurgee" in problems(json.loads(text))[0]


def test_each_component_is_listed(project: Path) -> None:
    own = yaml.safe_load((project / "deploy/kustomization.yaml").read_text())
    listed = {*own["resources"], *own.get("components", [])}
    folders = {path.name for path in (project / "deploy/kubernetes").iterdir() if path.is_dir()}
    # The environment chooses the last one.
    assert {f"kubernetes/{name}" for name in folders} - listed == {"kubernetes/cloudnative-pg"}


def test_the_app_is_given_only_settings_that_the_app_of_its_stage_has(project: Path) -> None:
    manifests = production(project)
    [app] = manifests["Deployment/app"]["spec"]["template"]["spec"]["containers"]
    given = {*manifests["ConfigMap/app"]["data"], *(one["name"] for one in app["env"])}
    example = (project / "deploy/env.example").read_text()
    known = set(re.findall(r"^# ([A-Z_0-9]+)=", example, re.MULTILINE))

    assert given >= {"DATABASE_URL", "FILES_FOLDER", "FORWARDED_ALLOW_IPS", "PUBLIC_URL"}
    # asyncpg reads it, because the URL has no password.
    assert given - known == {"PGPASSWORD"}


def test_the_app_and_its_migration_are_given_the_same(project: Path) -> None:
    manifests = production(project)
    app, migrate = (
        manifests[name]["spec"]["template"]["spec"]["containers"][0]
        for name in ("Deployment/app", "Job/migrate")
    )
    for key in ("image", "env", "envFrom", "securityContext"):
        assert app[key] == migrate[key], key
    own = (project / "app/infra/module_databases").exists()
    assert migrate["command"] == (EACH_DATABASE if own else ["alembic", "upgrade", "head"])
    # A cluster without the Secret starts the pods too.
    secret = {"secretRef": {"name": "module-databases", "optional": True}}
    assert (secret in app["envFrom"]) == own
    last = (project / "Dockerfile").read_text().splitlines()[-2]
    assert "`alembic upgrade head` in the same image" in last


def test_each_host_is_a_service(project: Path) -> None:
    manifests = production(project)
    services = {manifest["metadata"]["name"] for manifest in kind(manifests, "Service")}
    settings = manifests["ConfigMap/app"]["data"]
    ini = manifests.get("ConfigMap/pgbouncer", {"data": {"pgbouncer.ini": ""}})["data"]
    hosts = {
        *re.findall(r"//(?:app@)?(\w+):\d+", "\n".join(settings.values())),
        *re.findall(r"host=(\w+)", ini["pgbouncer.ini"]),
    } - {"localhost"}

    [cluster] = kind(manifests, "Cluster")
    by_operator = {
        one["serviceTemplate"]["metadata"]["name"]
        for one in cluster["spec"]["managed"]["services"]["additional"]
    }
    assert "postgres" in by_operator <= OF_THE_OPERATOR
    assert hosts <= services | by_operator


def kind(manifests: dict[str, Manifest], wanted: str) -> list[Manifest]:
    return [manifest for manifest in manifests.values() if manifest["kind"] == wanted]


def test_a_server_is_reached_by_the_app_alone(project: Path) -> None:
    manifests = production(project)
    policies = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]: policy["spec"]
        for policy in kind(manifests, "NetworkPolicy")
    }
    app = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "app"}}}

    assert policies.keys() == {name.split("/")[1] for name, _ in pods(manifests)}
    assert policies.pop("app")["ingress"] == [{"ports": [{"port": "http"}]}]
    assert "ingress" not in policies.pop("migrate")
    for name, policy in policies.items():
        assert [rule["from"] for rule in policy["ingress"]] == [[app]], name


def test_each_pod_keeps_to_the_restricted_standard(project: Path) -> None:
    for name, pod in pods(production(project)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"].keys() == {"requests", "limits"}, name
            assert container["resources"]["limits"].keys() == {"memory"}, name


def test_the_app_runs_as_the_user_of_its_image_and_writes_where_it_is_told(project: Path) -> None:
    manifests = production(project)
    pod = manifests["Deployment/app"]["spec"]["template"]["spec"]
    user = re.search(r"--uid (\d+)", (project / "Dockerfile").read_text())
    assert user
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user[1])
    mounted = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounted == {"/tmp", manifests["ConfigMap/app"]["data"]["FILES_FOLDER"]}  # noqa: S108


@pytest.mark.parametrize("journey", JOURNEYS, ids=described)
@pytest.mark.slow
def test_an_advance_keeps_what_is_there_and_most_of_all_what_holds_data(
    render: Render, journey: Journey
) -> None:
    before, after = production(render(journey[0])), production(render(journey[-1]))

    assert before.keys() <= after.keys()
    for name in HOLD_DATA:
        assert changeless(before.get(name)) in ({}, changeless(after.get(name))), name
    for name, manifest in before.items():
        if manifest["kind"] in {"Service", "StatefulSet"} or "selector" in manifest.get("spec", {}):
            # The cluster refuses a change of these.
            assert manifest["spec"]["selector"] == after[name]["spec"]["selector"], name


def changeless(manifest: Manifest | None) -> Manifest:
    """Without settings of Postgres, and the names by which its pods are reached."""
    kept: Manifest = json.loads(json.dumps(manifest or {}))
    if kept.get("kind") == "Cluster":
        del kept["spec"]["postgresql"], kept["spec"]["managed"]
    return kept


def test_no_tool_that_prunes_may_remove_what_holds_data(shop: Path) -> None:
    manifests = production(shop)
    for name in HOLD_DATA:
        assert manifests[name]["metadata"]["annotations"] == {
            "argocd.argoproj.io/sync-options": "Prune=false",
            "kustomize.toolkit.fluxcd.io/prune": "disabled",
        }
    assert (
        manifests["StatefulSet/sessions"]["spec"]["persistentVolumeClaimRetentionPolicy"][
            "whenDeleted"
        ]
        == "Retain"
    )


def number(pattern: str, file: Path) -> int:
    [found] = re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(float(found))


def test_the_app_has_time_to_end_before_it_is_killed(shop: Path) -> None:
    pod = production(shop)["Deployment/app"]["spec"]["template"]["spec"]
    infra = shop / "app" / "infra"
    longest = (
        pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        + number(r"^    seconds: .* = (\d+)$", infra / "copies/draining.py")
        + number(r"timeout_graceful_shutdown=(\d+)", infra / "serve.py")
        + number(r"^FLUSH_SECONDS = (\S+)$", infra / "telemetry/telemetry.py")
    )
    assert longest + 5 <= pod["terminationGracePeriodSeconds"]


def test_pgbouncer_has_time_to_end_before_it_is_killed(shop: Path) -> None:
    pod = production(shop)["Deployment/pgbouncer"]["spec"]["template"]["spec"]
    stop = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "kill -INT 1" in stop
    assert sum(map(int, re.findall(r"sleep (\d+)", stop))) < pod["terminationGracePeriodSeconds"]


def test_pgbouncer_reads_a_password_with_a_quote(shop: Path, tmp_path: Path) -> None:
    """As a managed Postgres may have made it. PgBouncer reads two quotes as one."""
    pod = production(shop)["Deployment/pgbouncer"]["spec"]["template"]["spec"]
    start = pod["containers"][0]["command"][-1].replace("/etc/pgbouncer", str(tmp_path))
    stub = tmp_path / "pgbouncer"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PGPASSWORD": 'a"b$c\\d%s'}
    subprocess.run(["sh", "-euc", start], env=environment, check=True)

    assert (tmp_path / "userlist.txt").read_text() == '"app" "a""b$c\\d%s"\n'


def test_the_probes_use_the_health_check_of_the_load_balancer(shop: Path) -> None:
    deployment = production(shop)["Deployment/app"]["spec"]
    [app] = deployment["template"]["spec"]["containers"]
    toml = tomllib.loads((shop / "deploy/load-balancer.toml").read_text())
    check, ready = toml["target_group"]["health_check"], app["readinessProbe"]
    assert ready["httpGet"] == {"path": check["path"], "port": "http"}
    assert ready["periodSeconds"] == check["interval"]
    assert ready["timeoutSeconds"] == check["timeout"]
    assert ready["failureThreshold"] == check["unhealthy_threshold"]
    starting = app["startupProbe"]
    assert (
        starting["failureThreshold"] * starting["periodSeconds"]
        == toml["ecs_service"]["health_check_grace_period_seconds"]
    )
    # Never fewer than before, and never more than `make budget` counts.
    rolling = deployment["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 100 - toml["ecs_service"]["minimum_healthy_percent"]
    capacity = tomllib.loads((shop / "deploy/capacity.toml").read_text())
    assert 1 + int(rolling["maxSurge"].rstrip("%")) / 100 <= capacity["during_a_deploy"]
    # A busy copy must not be killed.
    alive = app["livenessProbe"]
    assert alive["httpGet"]["path"] == "/live"
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


def test_the_number_of_copies_is_the_autoscalers(shop: Path) -> None:
    app = production(shop)["Deployment/app"]["spec"]
    assert "replicas" not in app
    # The 60% refer to this value, because one process uses at most one processor.
    assert app["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"


def test_postgres_has_connections_for_every_pgbouncer_of_a_roll(shop: Path) -> None:
    manifests = production(shop)
    ini = ConfigParser(interpolation=None, delimiters=("=",))
    ini.read(shop / "deploy/pgbouncer.ini")
    poolers = manifests["Deployment/pgbouncer"]["spec"]
    count = poolers["replicas"] + poolers["strategy"]["rollingUpdate"]["maxSurge"]
    sizes = ini["pgbouncer"]
    at_the_primary = [where for where in ini["databases"].values() if "host=postgres" in where]
    each = int(sizes["default_pool_size"]) + int(sizes["reserve_pool_size"])
    most = count * len(at_the_primary) * each
    direct = tomllib.loads((shop / "deploy/capacity.toml").read_text())["direct"]
    assert most == 150, "docs/guide/kubernetes.md names this number"
    parameters = manifests["Cluster/database"]["spec"]["postgresql"]["parameters"]
    # The operator and superusers keep some for themselves.
    assert most + direct + 10 <= int(parameters["max_connections"])


def test_the_cluster_gets_the_settings_of_postgres_conf(shop: Path) -> None:
    said = production(shop)["Cluster/database"]["spec"]["postgresql"]["parameters"]
    conf = dict(
        re.findall(
            r"^([a-z_.]+) = '?([^'\n]*)'?$", (shop / "deploy/postgres.conf").read_text(), re.M
        )
    )
    of_the_operator = {"shared_preload_libraries", "wal_keep_size"}
    of_the_size = {"max_connections", "shared_buffers"}
    assert {name: value for name, value in said.items() if name not in of_the_size} == {
        name: value for name, value in conf.items() if name not in of_the_operator | of_the_size
    }


def test_the_memory_limit_of_valkey_is_above_its_maxmemory(shop: Path) -> None:
    for name in ("Deployment/cache", "StatefulSet/sessions"):
        [server] = production(shop)[name]["spec"]["template"]["spec"]["containers"]
        conf = (shop / "deploy" / f"{server['name']}.conf").read_text()
        used = re.search(r"^maxmemory (\d+)(mb|gb)$", conf, re.MULTILINE)
        assert used
        megabytes = int(used[1]) * (1024 if used[2] == "gb" else 1)
        assert int(server["resources"]["limits"]["memory"].removesuffix("Mi")) >= megabytes * 1.5


def test_images_are_those_of_compose(shop: Path) -> None:
    compose = "".join(file.read_text() for file in (shop / "deploy").glob("*.yaml"))
    manifests = production(shop)
    images = {one["image"] for _, pod in pods(manifests) for one in containers(pod)} - {"app"}
    collector = next(image for image in images if image.startswith("otel/"))
    assert collector in (shop / "deploy/aws/telemetry.tf").read_text()
    assert [image for image in images - {collector} if f"image: {image}\n" not in compose] == []
    assert manifests["Cluster/database"]["spec"]["imageName"].endswith(":18")


def pages_yaml(project: Path) -> list[str]:
    page = (project / "docs/guide/kubernetes.md").read_text()
    return re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)


def test_the_pages_examples_work_together(shop: Path, tmp_path: Path) -> None:
    own = shutil.copytree(shop, tmp_path / "shop") / "environments" / "production"
    service, settings = pages_yaml(shop)
    (own / "postgres.yaml").write_text(service)
    yours = yaml.safe_load((own / "kustomization.yaml").read_text())
    yours["resources"][1] = "postgres.yaml"
    for key, lines in yaml.safe_load(settings).items():
        yours[key] = [*yours.get(key, []), *lines]
    # kustomize wants each map once.
    first, second, *others = yours["configMapGenerator"]
    first["literals"] += second["literals"]
    yours["configMapGenerator"] = [first, *others]
    (own / "kustomization.yaml").write_text(yaml.safe_dump(yours))

    manifests = built(own)

    assert kind(manifests, "Cluster") == []
    assert manifests["Service/postgres"]["spec"]["type"] == "ExternalName"
    assert manifests["ConfigMap/app"]["data"]["SESSION_STORE"] == "write-both"
    assert manifests["ConfigMap/collector"]["data"]["VENDOR"] == "datadog"
    assert "datadog.yaml" in manifests["ConfigMap/collector"]["data"]
    assert manifests["HorizontalPodAutoscaler/app"]["spec"]["minReplicas"] == 4


def test_the_variables_of_modules_are_in_a_secret_that_no_file_of_rungs_needs(shop: Path) -> None:
    page = (shop / "docs/guide/module_databases/production.md").read_text()
    for file in (shop / "deploy/kubernetes").rglob("*.yaml"):
        assert "MODULE_" not in file.read_text(), file
    assert "create secret generic module-databases --from-literal=MODULE_BILLING_DATABASE_" in page
    assert " ".join(EACH_DATABASE) in page


# Records its commands, applies to a folder, and fails where a test says so.
STUB = r"""#!/bin/sh
[ "$1" = kustomize ] && exec "$REAL_KUBECTL" "$@"
echo "$*" >> "$CALLS"
case "$*" in "apply"*) cat > "$CALLS.$(wc -l < "$CALLS")" ;; esac
case "$*" in
    *"get job"*uid*) echo "$JOBS" | cut -d, -f"$(grep -c uid "$CALLS")" ;;
    *"get job"*) echo "$ACTIVE" | cut -d, -f"$(grep -c "get job.*active" "$CALLS")" ;;
    *"$FAILS_AT"*) exit 1 ;;
esac
"""


class Releases:
    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.calls = project, folder / "calls"
        (folder / "bin").mkdir()
        stub = folder / "bin" / "kubectl"
        stub.write_text(STUB)
        stub.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{stub.parent}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "REAL_KUBECTL": str(KUBECTL),
        }

    def run(
        self,
        *words: str,
        fails_at: str = "nothing",
        active: str = "",
        jobs: str = "7,7",
    ) -> subprocess.CompletedProcess[str]:
        self.calls.unlink(missing_ok=True)
        return subprocess.run(
            ["sh", "deploy/kubernetes/release.sh", *words],
            cwd=self.project,
            env=self.environment | {"FAILS_AT": fails_at, "ACTIVE": active, "JOBS": jobs},
            capture_output=True,
            text=True,
            check=False,
        )

    def steps(self) -> list[str]:
        asked = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.removeprefix("--namespace=shop ") for line in asked]

    def applied(self, step: int) -> list[Manifest]:
        text = Path(f"{self.calls}.{step + 1}").read_text(encoding="utf-8")
        return list(yaml.safe_load_all(text))


@pytest.fixture
def releases(shop: Path, tmp_path: Path) -> Releases:
    return Releases(shop, tmp_path)


IMAGE = "registry.example/shop:3f2c"


def test_a_release_migrates_with_the_new_image_before_it_rolls(releases: Releases) -> None:
    done = releases.run("production", IMAGE)

    assert done.returncode == 0, done.stderr
    assert releases.steps() == [
        "get secret app postgres",
        "get job migrate --ignore-not-found --output=jsonpath={.status.active}",
        "delete job migrate --ignore-not-found",
        "apply --filename=- --selector=app.kubernetes.io/name notin (app, migrate)",
        "wait --for=condition=Ready cluster/database --timeout=15m",
        "apply --filename=- --selector=app.kubernetes.io/name = migrate",
        "get job migrate --output=jsonpath={.metadata.uid}",
        "logs --follow job/migrate --pod-running-timeout=10m",
        "wait --for=condition=Complete job/migrate --timeout=60s",
        "get job migrate --output=jsonpath={.metadata.uid}",
        "apply --filename=- --selector=app.kubernetes.io/name != migrate",
        "rollout status deployment/app --timeout=15m",
    ]
    expected = json.loads(
        json.dumps(list(production(releases.project).values())).replace(
            '"image": "app"', f'"image": "{IMAGE}"'
        )
    )
    for step in (3, 5, 10):
        assert releases.applied(step) == expected
    labelled = {
        f"{one['kind']}/{one['metadata']['name']}"
        for one in expected
        if one["metadata"].get("labels")
    }
    assert labelled == {"Deployment/app", "Job/migrate"}


@pytest.mark.parametrize(
    ("fails_at", "said", "steps"),
    [
        ("get secret", "Make the namespace and the Secrets", 1),
        ("notin", "", 4),
        ("job/migrate --timeout", "The migration has failed, so no copy was replaced", 10),
        ("rollout", "the old ones still serve. To go back: kubectl -n shop rollout undo", 12),
    ],
)
def test_a_release_stops_at_the_first_failure(
    releases: Releases, fails_at: str, said: str, steps: int
) -> None:
    done = releases.run("production", IMAGE, fails_at=fails_at)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(releases.steps()) == steps


def test_a_release_never_ends_a_migration_that_runs(releases: Releases) -> None:
    done = releases.run("production", IMAGE, active="1")

    assert done.returncode == 1
    assert done.stderr.startswith("The migration still runs. Wait for it: kubectl -n shop wait ")
    assert [step for step in releases.steps() if step.startswith(("delete", "apply"))] == []


def test_a_migration_that_outlives_its_log_is_not_called_failed(releases: Releases) -> None:
    done = releases.run("production", IMAGE, fails_at="job/migrate --timeout", active=",1")

    assert done.returncode == 1
    assert done.stderr.startswith("The migration still runs. Wait for it: kubectl -n shop wait ")
    assert releases.steps()[-1].startswith("get job migrate ")


def test_of_two_releases_at_once_none_rolls_without_its_own_migration(releases: Releases) -> None:
    """The other one has deleted this one's Job. Its own Job is complete."""
    done = releases.run("production", IMAGE, jobs="7,8")

    assert done.returncode == 1
    assert done.stderr.startswith("Another release began at the same moment")
    assert releases.steps()[-1].startswith("get job migrate ")


def test_an_image_that_the_overlay_names_is_not_released_in_place_of_the_new_one(
    shop: Path, tmp_path: Path
) -> None:
    releases = Releases(shutil.copytree(shop, tmp_path / "shop"), tmp_path)
    with (releases.project / "environments/production/kustomization.yaml").open("a") as overlay:
        overlay.write("images: [{name: app, newName: registry.example/shop, newTag: 1a}]\n")

    done = releases.run("production", IMAGE)

    assert done.returncode == 1
    assert done.stderr.startswith("environments/production/kustomization.yaml names its own image")
    assert done.stderr.count("\n") == 1
    assert releases.steps() == []


def test_a_managed_postgres_is_not_waited_for_as_one_of_the_operator(
    shop: Path, tmp_path: Path
) -> None:
    """Other kinds begin with the same word, such as a ClusterRole beside the app."""
    releases = Releases(shutil.copytree(shop, tmp_path / "shop"), tmp_path)
    overlay = releases.project / "environments/production/kustomization.yaml"
    yours = yaml.safe_load(overlay.read_text())
    yours["resources"][1] = "postgres.yaml"
    overlay.write_text(yaml.safe_dump(yours))
    reader = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
    (overlay.parent / "postgres.yaml").write_text(
        yaml.safe_dump(reader | {"metadata": {"name": "reader"}})
    )

    done = releases.run("production", IMAGE, fails_at="cluster/database")

    assert done.returncode == 0, done.stderr
    assert not [step for step in releases.steps() if "cluster/database" in step]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Usage: sh deploy/kubernetes/release.sh production"),
        (("nowhere", IMAGE), "There is no environments/nowhere/kustomization.yaml."),
    ],
)
def test_a_release_with_wrong_arguments_does_nothing(
    releases: Releases, words: tuple[str, ...], said: str
) -> None:
    done = releases.run(*words)

    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert releases.steps() == []
