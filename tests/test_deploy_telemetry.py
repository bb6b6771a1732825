"""The files for telemetry: the collector, the dashboards, the alerts."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import skip_without

FOLDER = Path(__file__).parent.parent / "template" / "deploy" / "telemetry"
DASHBOARDS = sorted(FOLDER.rglob("*dashboard.json"))
ALERTS = sorted(FOLDER.rglob("*alerts.yaml"))
COLLECTOR = FOLDER / "collector.yaml"
VENDORS = sorted(set(FOLDER.glob("*.yaml")) - {COLLECTOR, *ALERTS})


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As the collector does it with several --config: mappings grow, lists are replaced."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(above[key], dict):
            both[key] = merged(below[key], above[key])
    return both


def rules(file: Path) -> list[dict[str, Any]]:
    return [rule for group in read(file)["groups"] for rule in group["rules"]]


def test_there_is_a_file_for_each_vendor() -> None:
    assert {file.stem for file in VENDORS} >= {"datadog", "newrelic", "aws"}


@pytest.mark.parametrize("vendor", [None, *VENDORS], ids=lambda file: file.stem if file else "none")
def test_every_part_of_a_pipeline_is_configured_and_every_vendors_exporter_is_used(
    vendor: Path | None,
) -> None:
    configuration = merged(read(COLLECTOR), read(vendor) if vendor else {})
    pipelines = configuration["service"]["pipelines"]
    assert pipelines.keys() == {"traces", "metrics"}
    for pipeline in pipelines.values():
        for kind in ("receivers", "processors", "exporters"):
            assert pipeline[kind]
            assert set(pipeline[kind]) <= configuration[kind].keys()
    used = {name for pipeline in pipelines.values() for name in pipeline["exporters"]}
    assert used >= (read(vendor)["exporters"].keys() if vendor else {"debug"})


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda file: file.stem)
def test_a_vendors_file_changes_where_to_send_and_holds_no_key(vendor: Path) -> None:
    assert read(vendor).keys() == {"exporters", "service"}
    text = vendor.read_text(encoding="utf-8")
    for variable in re.findall(r"\$\{env:(\w+)\}", text):
        assert re.search(rf"^#.*\b{variable}\b", text, re.M), variable
    assert not re.findall(r"key: (?!\$\{env:)", text)


@pytest.mark.parametrize("file", ALERTS, ids=lambda file: file.stem)
def test_every_alert_says_what_is_wrong_and_what_to_do_next(file: Path) -> None:
    for rule in rules(file):
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"].keys() == {"summary", "next"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
    names = [rule["alert"] for file in ALERTS for rule in rules(file)]
    assert len(set(names)) == len(names)


def test_each_kind_of_failure_has_an_alert() -> None:
    watched = " ".join(rule["expr"] for file in ALERTS for rule in rules(file))
    for metric in (
        "http_server_request_duration_seconds_count",
        "http_server_request_duration_seconds_bucket",
        "asyncio_event_loop_delay_seconds_bucket",
        "cache_lookups_total",
        "db_client_connection_pending_requests",
        "db_replica_lag_seconds",
    ):
        assert metric in watched


def test_a_rare_route_that_always_fails_pages_somebody() -> None:
    found = rules(FOLDER / "alerts.yaml")
    by_route = [rule for rule in found if "(job, http_route)" in rule["expr"]]
    assert [rule["labels"]["severity"] for rule in by_route] == ["page"]


@pytest.mark.parametrize("file", ALERTS, ids=lambda file: file.parent.name)
def test_prometheus_accepts_the_rules(file: Path) -> None:
    promtool("check", "rules", str(file))


def test_a_service_without_any_process_pages_somebody_and_a_deploy_does_not(tmp_path: Path) -> None:
    """Nothing answers, so no request fails: the other alerts stay silent."""
    name = "NoProcessReports"
    [rule] = [rule for rule in rules(FOLDER / "alerts.yaml") if rule["alert"] == name]
    fires = {
        "exp_labels": {"severity": "page", "job": "gone"},
        "exp_annotations": {
            which: text.replace("{{ $labels.job }}", "gone")
            for which, text in rule["annotations"].items()
        },
    }
    started_and_ended = {  # as promtool writes samples: one a minute
        'job="gone", instance="1"': "16x30",
        'job="gone", instance="2"': "16x30",
        'job="deployed", instance="1"': "16x30",
        'job="deployed", instance="2"': "_x30 16x1440",
    }
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f"db_client_connection_max{{{labels}}}", "values": values}
            for labels, values in started_and_ended.items()
        ],
        "alert_rule_test": [
            {"alertname": name, "eval_time": "34m", "exp_alerts": []},
            {"alertname": name, "eval_time": "37m", "exp_alerts": [fires]},
            {"alertname": name, "eval_time": "24h", "exp_alerts": [fires]},
        ],
    }
    file = tmp_path / "test.yaml"
    alerts = str(FOLDER / "alerts.yaml")
    file.write_text(yaml.safe_dump({"rule_files": [alerts], "tests": [test]}))
    promtool("test", "rules", str(file))


def promtool(*arguments: str) -> None:
    skip_without("promtool")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_about_a_single_sample() -> None:
    """A new process has one, and a function over minutes takes it for all of them."""
    found = [rule for file in ALERTS for rule in rules(file)]
    assert [rule["alert"] for rule in found if "for" not in rule] == []


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_do_not_overlap_and_show_only_the_chosen_service(file: Path) -> None:
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert not [pair for pair in combinations(panels, 2) if overlap(*pair)]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert 'job=~"$service"' in target["expr"]
            assert target["expr"].count("(") == target["expr"].count(")")
            used = set(re.findall(r"\$\{?(\w+)", json.dumps(panel))) - {"__rate_interval"}
            assert used <= variables


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    a, b = one["gridPos"], other["gridPos"]
    return bool(
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    )
