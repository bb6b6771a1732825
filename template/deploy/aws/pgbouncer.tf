# Rung's file: advancing to another stage may change it.
variable "pgbouncer" {
  description = "The pooler: how many copies, each one's default_pool_size (`make budget`), and their image"
  type = object({
    copies    = optional(number, 2)
    pool_size = optional(number, 10)
    image     = optional(string, "edoburu/pgbouncer:v1.26.0-p0")
  })
  default = {}
}

locals {
  pgbouncer_url = "postgresql://app@pgbouncer.${aws_service_discovery_private_dns_namespace.main.name}:6432"
  pooler_environment = {
    DATABASE_POOLED          = "true"
    DATABASE_URL             = "${local.pgbouncer_url}/app"
    DATABASE_READ_URL        = "${local.pgbouncer_url}/app_read"
    DATABASE_DIRECT_URL      = local.database_url
    DATABASE_STATEMENT_CACHE = "100"
  }
  pooler_replica_urls = [for i, _ in local.replica_hosts : "${local.pgbouncer_url}/app_replica_${i + 1}"]
  # deploy/pgbouncer.ini for this network. Each replica has its own name, because the app asks each one for its
  # WAL position.
  pgbouncer_lines = flatten([
    for line in split("\n", file("${path.module}/../pgbouncer.ini")) : startswith(line, "app_replica = ") ? tolist([
      for i, host in local.replica_hosts :
      replace(replace(line, "app_replica = ", "app_replica_${i + 1} = "), "host=replica ", "host=${host} ")
    ]) : concat([replace(line, "host=postgres ", "host=${aws_db_instance.main.address} ")], line == "[databases]" ? local.pooled_modules : [])
  ])
  pgbouncer_file = replace(join("\n", [
    for line in local.pgbouncer_lines : line if line != "" && !startswith(line, "#")
  ]), "/etc/pgbouncer/userlist.txt", "/tmp/userlist.txt")
  pgbouncer_ini = replace(local.pgbouncer_file, "/default_pool_size = \\d+/", "default_pool_size = ${var.pgbouncer.pool_size}")
  pgbouncer_passwords = join("", [
    for name, _ in local.pooled_passwords : format("sed -i \"s/@%s@/$%s/\" /tmp/pgbouncer.ini; ", name, name)
  ])
  # ECS stops a container with SIGTERM, at which PgBouncer waits until all clients have left. The app's pools stay connected, so
  # SIGKILL would follow. SIGINT lets transactions end. The shell sends it 5 s later, when DNS no longer names this task. The exit
  # code stays PgBouncer's.
  pgbouncer_start = "umask 077; printf '%s\\n' \"$INI\" > /tmp/pgbouncer.ini; ${local.pgbouncer_passwords}printf '\"app\" \"%s\"\\n' \"$PGPASSWORD\" > /tmp/userlist.txt; pgbouncer /tmp/pgbouncer.ini & trap 'sleep 5; kill -INT $!; wait $!; exit $?' TERM; wait $!"
}

resource "aws_service_discovery_private_dns_namespace" "main" {
  name = "${local.id}.internal"
  vpc  = aws_vpc.main.id
}

resource "aws_service_discovery_service" "pgbouncer" {
  name = "pgbouncer"
  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.main.id
    routing_policy = "MULTIVALUE"
    dns_records {
      type = "A"
      ttl  = 5
    }
  }
}

resource "aws_security_group" "pgbouncer" {
  name_prefix = "${local.id}-pgbouncer-"
  description = "The pooler"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "pgbouncer" {
  description       = "Postgres, and the registry of the image"
  security_group_id = aws_security_group.pgbouncer.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_ingress_rule" "pgbouncer_from_app" {
  description                  = "The app"
  security_group_id            = aws_security_group.pgbouncer.id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 6432
  to_port                      = 6432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "database_from_pgbouncer" {
  description                  = "The pooler"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.pgbouncer.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_ecs_task_definition" "pgbouncer" {
  family                   = "${local.id}-pgbouncer"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.start.arn
  skip_destroy             = true
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }
  # A task reads its secrets only when it starts, so another password needs another revision.
  container_definitions = jsonencode([{
    name             = "pgbouncer"
    image            = var.pgbouncer.image
    essential        = true
    entryPoint       = ["sh", "-c"]
    command          = [local.pgbouncer_start]
    environment      = [for name, value in { INI = local.pgbouncer_ini, PASSWORD_VERSION = tostring(var.database.password_version) } : { name = name, value = value }]
    secrets          = [for name, arn in merge({ PGPASSWORD = aws_secretsmanager_secret.database.arn }, local.pooled_passwords) : { name = name, valueFrom = arn }]
    portMappings     = [{ containerPort = 6432, hostPort = 6432, protocol = "tcp" }]
    ulimits          = [{ name = "nofile", softLimit = 8192, hardLimit = 8192 }]
    stopTimeout      = 30
    logConfiguration = local.logs
  }])
}

resource "aws_ecs_service" "pgbouncer" {
  name                               = "pgbouncer"
  cluster                            = aws_ecs_cluster.main.id
  task_definition                    = aws_ecs_task_definition.pgbouncer.arn
  launch_type                        = "FARGATE"
  desired_count                      = var.pgbouncer.copies
  deployment_minimum_healthy_percent = 100
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.pgbouncer.id]
    assign_public_ip = true
  }
  service_registries {
    registry_arn = aws_service_discovery_service.pgbouncer.arn
  }
  depends_on = [aws_iam_role_policy.start_secrets]
}
