# Rung's file: advancing to another stage may change it.
resource "aws_ecr_repository" "app" {
  name                 = local.id
  image_tag_mutability = "IMMUTABLE"
  image_scanning_configuration {
    scan_on_push = true
  }
  lifecycle {
    prevent_destroy = true
  }
}

# Otherwise each commit's image stays, until the repository is full at 20,000.
resource "aws_ecr_lifecycle_policy" "app" {
  repository = aws_ecr_repository.app.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "The newest 500, for rollbacks"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 500 }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_ecs_cluster" "main" {
  name = local.id
}

resource "aws_cloudwatch_log_group" "app" {
  name              = "/${local.id}/app"
  retention_in_days = 30
}

data "aws_iam_policy_document" "by_tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# Starts tasks: pulls the image, reads the secrets, writes the logs.
resource "aws_iam_role" "start" {
  name_prefix        = "${local.id}-start-"
  assume_role_policy = data.aws_iam_policy_document.by_tasks.json
}

resource "aws_iam_role_policy_attachment" "start" {
  role       = aws_iam_role.start.name
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role_policy" "start_secrets" {
  role = aws_iam_role.start.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = "secretsmanager:GetSecretValue"
      # A task may name one key of a secret (ARN:key::). A right is for the whole secret.
      Resource = distinct([
        for arn in concat(values(local.secrets), local.sidecar_secrets) : replace(arn, "/^((?:[^:]*:){6}[^:]*):.*$/", "$1")
      ])
    }]
  })
}

# The rights of the app: only `make console`, until a capability adds more.
resource "aws_iam_role" "app" {
  name_prefix        = "${local.id}-app-"
  assume_role_policy = data.aws_iam_policy_document.by_tasks.json
}

resource "aws_iam_role_policy" "app_console" {
  role = aws_iam_role.app.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = [for one in ["CreateControl", "CreateData", "OpenControl", "OpenData"] : "ssmmessages:${one}Channel"]
      Resource = "*"
    }]
  })
}

locals {
  logs = {
    logDriver = "awslogs"
    options = {
      awslogs-group         = aws_cloudwatch_log_group.app.name
      awslogs-region        = data.aws_region.here.name
      awslogs-stream-prefix = "app"
    }
  }
  app_container = {
    name                   = "app"
    image                  = var.image
    essential              = true
    portMappings           = [{ containerPort = 8000, hostPort = 8000, protocol = "tcp" }]
    environment            = [for name, value in local.environment : { name = name, value = value }]
    secrets                = [for name, arn in local.secrets : { name = name, valueFrom = arn }]
    mountPoints            = [{ sourceVolume = "files", containerPath = "/var/lib/app/files", readOnly = false }]
    readonlyRootFilesystem = true
    linuxParameters        = { tmpfs = [{ containerPath = "/tmp", size = 256 }] }
    stopTimeout            = 30
    logConfiguration       = local.logs
  }
}

resource "aws_ecs_task_definition" "app" {
  family                   = local.id
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.app.arn
  container_definitions    = jsonencode(concat([local.app_container], local.sidecars))
  skip_destroy             = true # A service cannot go back to a deregistered revision.
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }
  volume {
    name = "files"
    efs_volume_configuration {
      file_system_id     = aws_efs_file_system.files.id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = aws_efs_access_point.files.id
      }
    }
  }
}

# A release says which revision runs, after its migration. So an apply never starts the app, and needs no image.
resource "aws_ecs_service" "app" {
  name                               = "app"
  cluster                            = aws_ecs_cluster.main.id
  task_definition                    = aws_ecs_task_definition.app.arn
  launch_type                        = "FARGATE"
  desired_count                      = 0
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 30
  propagate_tags                     = "SERVICE"
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.app.id]
    assign_public_ip = true
  }
  load_balancer {
    target_group_arn = aws_lb_target_group.app.arn
    container_name   = "app"
    container_port   = 8000
  }
  lifecycle {
    ignore_changes = [desired_count, task_definition]
  }
  depends_on = [aws_lb_listener.https, aws_iam_role_policy.start_secrets, aws_efs_mount_target.files]
}

# At every stage this target owns the number of copies, so no stage has to hand it over.
resource "aws_appautoscaling_target" "app" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.main.name}/${aws_ecs_service.app.name}"
  min_capacity       = local.copies.least
  max_capacity       = local.copies.most
}

output "address" {
  description = "The name to point the one in public_url to (CNAME)"
  value       = aws_lb.main.dns_name
}

output "repository" {
  description = "Push the image here"
  value       = aws_ecr_repository.app.repository_url
}

output "release" {
  description = "The values that a release needs"
  value = {
    cluster         = aws_ecs_cluster.main.name
    service         = aws_ecs_service.app.name
    task_definition = aws_ecs_task_definition.app.arn
    subnets         = aws_subnet.public[*].id
    security_group  = aws_security_group.app.id
    copies          = local.copies.least
    logs            = aws_cloudwatch_log_group.app.name
    migration       = local.migration
  }
}
