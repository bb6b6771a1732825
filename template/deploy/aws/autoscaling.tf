# Rung's file: advancing to another stage may change it.
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
