"""checkov's policies on deploy/aws of the generated repo, each exception with its reason."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Render

# The smallest, the largest, and the other pooler. The other stages have the same lines:
# test_deploy_aws.py.
SCANNED: list[dict[str, Any]] = [
    {"stage": 1},
    {"stage": 2, "pooler": "rds_proxy"},
    {"stage": 4, "replica_routing": True, "module_databases": True},
]

NO_KEY = "AWS' own key encrypts it, and a key of yours costs and can lock you out"
YOURS = "Costs by traffic, and each company has a place for it: add it in environments/"
REPLICA = "A replica holds nothing that the primary does not have"
REASONS = {
    "CKV2_AWS_11 aws_vpc.main": YOURS,
    "CKV2_AWS_28 aws_lb.main": YOURS,
    "CKV2_AWS_50 aws_elasticache_replication_group.cache": "Postgres has what the cache holds",
    "CKV2_AWS_5 aws_security_group.rds_proxy": "The proxies have it: checkov does not look there",
    "CKV2_AWS_57 aws_secretsmanager_secret.database": "Running copies keep the old password",
    "CKV2_AWS_57 aws_secretsmanager_secret.module": "Running copies keep the old password",
    "CKV2_AWS_57 aws_secretsmanager_secret.module_url": "It follows the password in it",
    "CKV2_AWS_57 aws_secretsmanager_secret.rds_proxy": "It follows that of the database",
    "CKV2_AWS_57 aws_secretsmanager_secret.secret_key": "The runbook of keys rotates it in steps",
    "CKV2_AWS_62 aws_s3_bucket.files": "Nothing listens",
    "CKV_AWS_118 aws_db_instance.main": "An agent that costs; Performance Insights shows the load",
    "CKV_AWS_118 aws_db_instance.module": "As of the common database",
    "CKV_AWS_118 aws_db_instance.module_replica": REPLICA,
    "CKV_AWS_118 aws_db_instance.replica[0]": REPLICA,
    "CKV_AWS_129 aws_db_instance.main": "From stage 2 on",
    "CKV_AWS_133 aws_db_instance.main": "backup_days, at least 1: checkov reads no default",
    "CKV_AWS_133 aws_db_instance.module": "backup_days, at least 1: checkov reads no default",
    "CKV_AWS_136 aws_ecr_repository.app": NO_KEY,
    "CKV_AWS_144 aws_s3_bucket.files": "A second region is a decision of the business",
    "CKV_AWS_145 aws_s3_bucket.files": NO_KEY,
    "CKV_AWS_149 aws_secretsmanager_secret.database": NO_KEY,
    "CKV_AWS_149 aws_secretsmanager_secret.module": NO_KEY,
    "CKV_AWS_149 aws_secretsmanager_secret.module_url": NO_KEY,
    "CKV_AWS_149 aws_secretsmanager_secret.rds_proxy": NO_KEY,
    "CKV_AWS_149 aws_secretsmanager_secret.secret_key": NO_KEY,
    "CKV_AWS_157 aws_db_instance.main": "database.multi_az, which costs the database twice",
    "CKV_AWS_157 aws_db_instance.module": "module_database.multi_az, as of the common database",
    "CKV_AWS_157 aws_db_instance.module_replica": REPLICA,
    "CKV_AWS_157 aws_db_instance.replica[0]": REPLICA,
    "CKV_AWS_158 aws_cloudwatch_log_group.app": NO_KEY,
    "CKV_AWS_161 aws_db_instance.main": "PgBouncer and the app sign in by password",
    "CKV_AWS_161 aws_db_instance.module": "The app signs in by password",
    "CKV_AWS_18 aws_s3_bucket.files": YOURS,
    "CKV_AWS_184 aws_efs_file_system.files": NO_KEY,
    "CKV_AWS_191 aws_elasticache_replication_group.cache": NO_KEY,
    "CKV_AWS_191 aws_elasticache_replication_group.sessions": NO_KEY,
    'CKV_AWS_260 aws_vpc_security_group_ingress_rule.web["80"]': "Only redirects to 443",
    "CKV_AWS_293 aws_db_instance.module_replica": REPLICA,
    "CKV_AWS_293 aws_db_instance.replica[0]": REPLICA,
    "CKV_AWS_300 aws_s3_bucket_lifecycle_configuration.files": "s3-lifecycle.json says it",
    "CKV_AWS_31 aws_elasticache_replication_group.cache": "The token would be in the state",
    "CKV_AWS_31 aws_elasticache_replication_group.sessions": "The token would be in the state",
    "CKV_AWS_333 aws_ecs_service.app": "Instead of NAT; only the load balancer gets in",
    "CKV_AWS_333 aws_ecs_service.pgbouncer": "Instead of NAT; only the app gets in",
    "CKV_AWS_338 aws_cloudwatch_log_group.app": "30 days: they name people's addresses",
    "CKV_AWS_354 aws_db_instance.main": NO_KEY,
    "CKV_AWS_354 aws_db_instance.module": NO_KEY,
    "CKV_AWS_354 aws_db_instance.module_replica": NO_KEY,
    "CKV_AWS_354 aws_db_instance.replica[0]": NO_KEY,
    "CKV_AWS_394 aws_availability_zones.all": "A subnet ignores later zones",
    "CKV_AWS_65 aws_ecs_cluster.main": "Costs by metric; the load on processors is free",
    "CKV_AWS_91 aws_lb.main": YOURS,
}


def scan(project: Path) -> subprocess.Popen[str]:
    # Not in uv.lock, because it pins a hundred other packages.
    checkov = [os.environ.get("UV", "uv"), "tool", "run", "--quiet", "checkov==3.3.30"]
    options = ("--framework=terraform", "--output=json", "--quiet", "--compact", "--skip-download")
    return subprocess.Popen(
        [*checkov, "--directory=deploy/aws", *options],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def findings(scan: subprocess.Popen[str]) -> set[str]:
    """Policies, each with the resource."""
    said, why = scan.communicate()
    assert said.startswith("{"), why
    found = json.loads(said)
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 50
    return {f"{one['check_id']} {one['resource']}" for one in found["results"]["failed_checks"]}


@pytest.mark.slow
def test_each_finding_of_checkov_has_a_reason(render: Render) -> None:
    scans = [scan(render(variant)) for variant in SCANNED]

    assert set().union(*map(findings, scans)) == set(REASONS)
