# Rung's file: advancing to another stage may change it.
variable "telemetry" {
  description = "Where traces and metrics go: a file of deploy/telemetry, and secrets that it names (setting and ARN)"
  type = object({
    vendor      = optional(string, "aws")
    environment = optional(map(string), {})
    secrets     = optional(map(string), {})
    image       = optional(string, "otel/opentelemetry-collector-contrib:0.140.0")
  })
  default = {}
}

locals {
  telemetry_environment = { OTEL_EXPORTER_OTLP_ENDPOINT = "http://localhost:4318" }
  collector_environment = merge(var.telemetry.environment, {
    COLLECTOR = file("${path.module}/../telemetry/collector.yaml")
    EXPORTER  = file("${path.module}/../telemetry/${var.telemetry.vendor}.yaml")
  })
  collector = {
    name             = "collector"
    image            = var.telemetry.image
    essential        = false # The app serves requests without it.
    cpu              = 64
    memory           = 256
    command          = ["--config=env:COLLECTOR", "--config=env:EXPORTER"]
    environment      = [for name, value in local.collector_environment : { name = name, value = value }]
    secrets          = [for name, arn in var.telemetry.secrets : { name = name, valueFrom = arn }]
    logConfiguration = local.logs
  }
}

resource "aws_iam_role_policy" "app_telemetry" {
  role = aws_iam_role.app.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = "xray:PutTraceSegments", Resource = "*" },
      {
        Effect = "Allow"
        Action = [
          for one in ["CreateLogGroup", "CreateLogStream", "DescribeLogStreams", "PutLogEvents", "PutRetentionPolicy"] :
          "logs:${one}"
        ]
        Resource = "arn:${data.aws_partition.here.partition}:logs:*:*:log-group:/metrics/app*" # deploy/telemetry/aws.yaml
      },
    ]
  })
}
