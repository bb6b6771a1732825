# Rung's file: advancing to another stage may change it.
# The folder of uploaded files: a task's own disk ends with the task. After the move to S3, the folder is the way back.
resource "aws_efs_file_system" "files" {
  encrypted = true
  tags      = { Name = local.id }
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_backup_policy" "files" {
  file_system_id = aws_efs_file_system.files.id
  backup_policy {
    status = "ENABLED"
  }
}

resource "aws_security_group" "files" {
  name_prefix = "${local.id}-files-"
  description = "The folder of files"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "files_from_app" {
  description                  = "The app"
  security_group_id            = aws_security_group.files.id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 2049
  to_port                      = 2049
  ip_protocol                  = "tcp"
}

resource "aws_efs_mount_target" "files" {
  count           = 2
  file_system_id  = aws_efs_file_system.files.id
  subnet_id       = aws_subnet.data[count.index].id
  security_groups = [aws_security_group.files.id]
}

# The user of the Dockerfile.
resource "aws_efs_access_point" "files" {
  file_system_id = aws_efs_file_system.files.id
  posix_user {
    uid = 10001
    gid = 10001
  }
  root_directory {
    path = "/files"
    creation_info {
      owner_uid   = 10001
      owner_gid   = 10001
      permissions = "0700"
    }
  }
}
