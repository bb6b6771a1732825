# Rung's file: advancing to another stage may change it.
"""Connections to each Redis or Valkey that deploy/capacity.toml names."""

import re
from pathlib import Path

from dev.capacity import FILE, Capacity, Need

# What the server takes where its file says nothing. With fewer open files allowed (ulimit -n) than
# 32 more than this, it takes fewer, and says so only in its log.
MAX_CLIENTS = 10_000


def needs(capacity: Capacity) -> list[Need]:
    return [_need(capacity.processes, name, each) for name, each in capacity.redis.items()]


def _need(processes: int, name: str, each: int) -> Need:
    file = Path("deploy") / f"{name}.conf"
    needed = processes * each
    limit = max_clients(file.read_text() if file.exists() else "")
    remedies = [f"set maxclients {needed} in {file}"]
    if fitting := limit // processes:
        remedies.append(f"give the app's pool {fitting}, and say so under [redis] in {FILE}")
    what = f"Redis of {name}"
    return Need(what, f"{processes} x {each}", needed, limit, ", or ".join(remedies))


def max_clients(configuration: str) -> int:
    found = re.search(r"^maxclients\s+(\d+)", configuration, re.MULTILINE)
    return int(found[1]) if found else MAX_CLIENTS
