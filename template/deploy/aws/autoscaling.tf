# Rung's file: advancing to another stage may change it.
variable "scheduled_copies" {
  description = "The minimum of copies from a time on, by a name: { morning = { schedule = \"cron(0 7 ? * MON-FRI *)\", least = 6 } }"
  type        = map(object({ schedule = string, least = number }))
  default     = {}
  validation {
    condition     = alltrue([for one in values(var.scheduled_copies) : one.least <= local.copies.most])
    error_message = "least is at most MaxCapacity in deploy/autoscaling-target.json."
  }
}

variable "schedule_timezone" {
  description = "Of scheduled_copies"
  type        = string
  default     = "Etc/UTC"
}

locals {
  scaling_target = jsondecode(file("${path.module}/../autoscaling-target.json"))
  scaling_policy = jsondecode(file("${path.module}/../autoscaling-policy.json"))
  scaling_track  = local.scaling_policy.TargetTrackingScalingPolicyConfiguration
}

resource "aws_appautoscaling_policy" "processor" {
  name               = local.scaling_policy.PolicyName
  policy_type        = local.scaling_policy.PolicyType
  service_namespace  = aws_appautoscaling_target.app.service_namespace
  scalable_dimension = aws_appautoscaling_target.app.scalable_dimension
  resource_id        = aws_appautoscaling_target.app.resource_id
  target_tracking_scaling_policy_configuration {
    target_value       = local.scaling_track.TargetValue
    scale_out_cooldown = local.scaling_track.ScaleOutCooldown
    scale_in_cooldown  = local.scaling_track.ScaleInCooldown
    predefined_metric_specification {
      predefined_metric_type = local.scaling_track.PredefinedMetricSpecification.PredefinedMetricType
    }
  }
}

# The maximum stays the same, so `make budget` stays right. An apply sets the minimum of deploy/autoscaling-target.json,
# until the next scheduled time.
resource "aws_appautoscaling_scheduled_action" "copies" {
  for_each           = var.scheduled_copies
  name               = each.key
  service_namespace  = aws_appautoscaling_target.app.service_namespace
  scalable_dimension = aws_appautoscaling_target.app.scalable_dimension
  resource_id        = aws_appautoscaling_target.app.resource_id
  schedule           = each.value.schedule
  timezone           = var.schedule_timezone
  scalable_target_action {
    min_capacity = each.value.least
  }
}
