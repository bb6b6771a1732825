# Rung's file: advancing to another stage may change it.
"""Runs processes with read-only file systems, in a private mount namespace."""

import shutil
import subprocess
from collections.abc import Mapping

# /proc and /sys hold no files. Devices and logs that were opened before stay writable.
SCRIPT = r"""
set -eu
mount --make-rprivate /
while read -r _ at _ options _; do
    case "$at" in /proc|/proc/*|/sys|/sys/*) continue ;; esac
    # In a user namespace a remount must repeat the flags of the mount.
    flags=$(echo "$options" | tr , '\n' | grep -E '^no|^relatime' | sed 's/^/,/' | tr -d '\n')
    mount -o "remount,bind,ro$flags" "$at" 2>/dev/null || true
done < /proc/self/mounts
for folder in . "$HOME" /tmp /var/tmp /dev/shm; do
    if touch "$folder/rung-probe" 2>/dev/null; then echo "$folder is writable" >&2; exit 97; fi
done
exec "$@"
"""


def wrapped(command: list[str]) -> list[str]:
    """Returns the command that runs this one where nothing can be written."""
    return [*_namespace(), "sh", "-c", SCRIPT, "sh", *command]


def is_possible(environment: Mapping[str, str]) -> bool:
    return bool(_namespace()) and _succeeds(wrapped(["true"]), environment)


def _namespace() -> list[str]:
    """Root needs the kernel's permission, which containers often lack."""
    if shutil.which("unshare"):
        for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            if _succeeds(["unshare", *options, "true"]):
                return ["unshare", *options]
    return []


def _succeeds(command: list[str], environment: Mapping[str, str] | None = None) -> bool:
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0
