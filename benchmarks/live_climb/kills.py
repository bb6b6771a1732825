"""Faults between the steps of the runbooks: servers are killed and come back."""

import re
from dataclasses import dataclass

import place

POOLER = 'pgbouncer -q -d "$POOLER/pgbouncer.ini"'


@dataclass(frozen=True)
class Fault:
    stage: int  # where its server arrives
    what: str
    commands: str
    # Requests that fail during it are counted separately, because nothing can answer them.
    is_announced: bool = False
    # Only these may: a pattern of a method and a path.
    may_fail: str = ""
    # The section of the runbook by which the replica takes over. The old primary comes back.
    failover: str = ""
    # A new server replaces an old one permanently: their variables are exchanged.
    exchanged: place.Names = ()
    # Commits that the replica had not received, and no more than the runbook lists.
    may_lose: bool = False

    @property
    def name(self) -> str:
        return f"fault: {self.what}"


def _killed(folder: str, server: str) -> str:
    """A server with a configuration of its runbook, away for two seconds."""
    return f'kill -KILL "$(cat "{folder}/pid")"\nsleep 2\nvalkey-server "{folder}/{server}.conf"'


def _hangs(pid_file: str) -> str:
    return f'pid=$(cat "{pid_file}")\nkill -STOP "$pid"\nsleep 2\nkill -CONT "$pid"'


def _postgres_hangs(data: str) -> str:
    return (
        f'postgres=$(head -1 "{data}/postmaster.pid")\n'
        'all="$postgres $(pgrep -P "$postgres" | tr "\\n" " ")"\n'
        "kill -STOP $all\nsleep 2\nkill -CONT $all"
    )


# Without a name that can be moved, the URL changes, as the runbook says.
DEPLOYED = """\
move_sessions() {
    settings "SESSION_REDIS_URL=redis://:$SESSIONS_PASSWORD@$1:$2/0"
    deploy "$ONE" "$TWO"
}
LOST_DISK=$SESSIONS MOVE_SESSIONS=move_sessions
"""

# Both copies notice within five seconds, and say so at /ready.
SESSIONS_AWAY = """\
both() {
    for port in "$ONE" "$TWO"; do
        curl -fsS "http://127.0.0.1:$port/ready" | grep -q "$@" sessions || return 1
    done
}
kill -KILL "$(cat "$SESSIONS/pid")"
until both; do sleep 0.1; done
valkey-server "$SESSIONS/sessions.conf"
until both -v; do sleep 0.1; done"""

# The proxy of deploy.md, or the one that stage 4 delivers.
THE_PROXY = """\
pid=$CLIMB/haproxy.pid start=start-balancer
if [ "$BALANCER" = "$NEW_BALANCER" ]; then
    pid=$CLIMB/new-haproxy.pid start="$START_PROXY $SITE/haproxy.cfg"
fi
"""
THE_PRIMARY = 'primary=$(head -1 "$POSTGRES_DATA/postmaster.pid")\n'
FILES = r"^\w+ (/uploads|https?:)"  # links to files lead to S3

FAULTS = (
    Fault(
        1,
        "kill -9 of HAProxy, back at once",
        f'{THE_PROXY}kill -KILL "$(cat "$pid")"\n$start',
        is_announced=True,
    ),
    Fault(
        1,
        "HAProxy hangs for two seconds",
        f'{THE_PROXY}kill -STOP "$(cat "$pid")"\nsleep 2\nkill -CONT "$(cat "$pid")"',
    ),
    Fault(
        1,
        "kill -9 of the primary, back at once",
        f'{THE_PRIMARY}kill -KILL "$primary"\n'
        "timeout 60 sh -c 'until $RESTART_POSTGRES; do sleep 0.2; done'",
        is_announced=True,
    ),
    Fault(
        1,
        "the primary hangs for two seconds",
        _postgres_hangs("$POSTGRES_DATA"),
        is_announced=True,
    ),
    Fault(1, "the primary restarts", "$RESTART_POSTGRES", is_announced=True),
    Fault(1, "kill -9 of one process", 'kill -KILL "$(cat "$SITE/$ONE.pid")"\ndeploy "$ONE"'),
    Fault(1, "kill -9 of the other", 'kill -KILL "$(cat "$SITE/$TWO.pid")"\ndeploy "$TWO"'),
    Fault(1, "one process hangs for two seconds", _hangs("$SITE/$ONE.pid")),
    Fault(
        1,
        "the connection of the operator is lost",
        'for port in "$ONE" "$TWO"; do kill -HUP "$(cat "$SITE/$port.pid")"; done\nsleep 1\n'
        'for port in "$ONE" "$TWO"; do kill -0 "$(cat "$SITE/$port.pid")"; done',
    ),
    Fault(
        2,
        "PgBouncer restarts",
        'old=$(cat "$POOLER/pid")\nkill -INT "$old"\n'
        f'while kill -0 "$old" 2>/dev/null; do sleep 0.1; done\n{POOLER}',
    ),
    Fault(
        2,
        "kill -9 of PgBouncer, back at once",
        f'kill -KILL "$(cat "$POOLER/pid")"\nrm "$POOLER/pid"\n{POOLER}',
        is_announced=True,
    ),
    Fault(2, "PgBouncer hangs for two seconds", _hangs("$POOLER/pid")),
    Fault(2, "the replica is away for two seconds", "$STOP_REPLICA\nsleep 2\n$START_REPLICA"),
    Fault(2, "the replica hangs for two seconds", _postgres_hangs("$REPLICA_DATA")),
    Fault(
        2,
        "a new replica takes the place of the old one",
        # If it was cut, the way back ends with an error.
        "set +e\nfollow replicas/add-a-replica.md 1. back\n"
        "set -e\nfollow replicas/add-a-replica.md 1.",
    ),
    Fault(2, "the primary moves to its replica, as planned", "", failover="1."),
    Fault(
        2,
        "kill -9 of the primary for good, and its replica takes over",
        f'{THE_PRIMARY}kill -KILL "$primary"',
        is_announced=True,
        failover="2.",
        may_lose=True,
    ),
    Fault(3, "kill -9 of the cache, back in two seconds", _killed("$CACHE", "cache")),
    Fault(3, "the cache hangs for two seconds", _hangs("$CACHE/pid")),
    Fault(
        3,
        "kill -9 of the cache for good, and a new one takes its place",
        'kill -KILL "$(cat "$CACHE/pid")"\n'
        "follow cache/upgrade-valkey.md 1.\nfollow cache/upgrade-valkey.md 2.",
        exchanged=place.CACHES,
    ),
    Fault(
        4,
        "kill -9 of S3, back in two seconds",
        'kill -KILL "$(cat "$CLIMB/s3.pid")"\nsleep 2\nstart-s3',
        is_announced=True,
        may_fail=FILES,
    ),
    Fault(
        4,
        "S3 hangs for two seconds",
        'kill -STOP "$(cat "$CLIMB/s3.pid")"\nsleep 2\nkill -CONT "$(cat "$CLIMB/s3.pid")"',
        is_announced=True,
        may_fail=FILES,
    ),
    Fault(
        4,
        "kill -9 of the sessions' Redis, back when both copies know",
        SESSIONS_AWAY,
        is_announced=True,
    ),
    Fault(4, "the sessions' Redis hangs for two seconds", _hangs("$SESSIONS/pid")),
    Fault(
        4,
        "kill -9 of the sessions' Redis for good, and a new one gets its disk",
        f'kill -KILL "$(cat "$SESSIONS/pid")"\n{DEPLOYED}follow redis_sessions/loss.md 1.',
        is_announced=True,
        exchanged=place.SESSIONS,
    ),
)


def faults_at(stage: int, top: int, pattern: str) -> list[Fault]:
    """Each where its server is new, and all where everything is there."""
    those = [one for one in FAULTS if re.search(pattern, one.what)]
    return [one for one in those if one.stage == stage or one.stage < stage == top]
