# Rung's file: advancing to another stage may change it.
variable "files_store" {
  description = "The step of the files' move (docs/runbooks/s3/move-the-files.md)"
  type        = string
  default     = "folder"
}

locals {
  s3_environment = {
    FILES_STORE     = var.files_store
    FILES_BUCKET    = aws_s3_bucket.files.bucket
    FILES_S3_REGION = data.aws_region.here.name
  }
}

resource "aws_s3_bucket" "files" {
  bucket_prefix = "${local.id}-"
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "files" {
  bucket                  = aws_s3_bucket.files.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "files" {
  bucket = aws_s3_bucket.files.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_policy" "files" {
  bucket     = aws_s3_bucket.files.id
  policy     = replace(file("${path.module}/../s3-policy.json"), "arn:aws:s3:::BUCKET", aws_s3_bucket.files.arn)
  depends_on = [aws_s3_bucket_public_access_block.files]
}

resource "aws_s3_bucket_cors_configuration" "files" {
  bucket = aws_s3_bucket.files.id
  dynamic "cors_rule" {
    for_each = jsondecode(file("${path.module}/../s3-cors.json")).CORSRules
    content {
      # null: what browsers send after the app has redirected a page of another origin.
      allowed_origins = concat([var.public_url, "null"], var.page_origins)
      allowed_methods = cors_rule.value.AllowedMethods
      allowed_headers = cors_rule.value.AllowedHeaders
      max_age_seconds = cors_rule.value.MaxAgeSeconds
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "files" {
  bucket = aws_s3_bucket.files.id
  dynamic "rule" {
    for_each = jsondecode(file("${path.module}/../s3-lifecycle.json")).Rules
    content {
      id     = rule.value.ID
      status = rule.value.Status
      filter {}
      abort_incomplete_multipart_upload {
        days_after_initiation = rule.value.AbortIncompleteMultipartUpload.DaysAfterInitiation
      }
    }
  }
  # Versioning keeps each deleted file. You can restore it for as long as the rows that name it.
  rule {
    id     = "DeletedFiles"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.database.backup_days
    }
    expiration {
      expired_object_delete_marker = true
    }
  }
}

resource "aws_iam_role_policy" "app_files" {
  role   = aws_iam_role.app.id
  policy = replace(file("${path.module}/../s3-role.json"), "arn:aws:s3:::BUCKET", aws_s3_bucket.files.arn)
}
