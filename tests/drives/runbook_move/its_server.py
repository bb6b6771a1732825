"""Follows module_databases/its-server.md once the module has its own server: names in PgBouncer,
a planned failover to a replica of it, and an upgrade to a new server.
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import place
from operators_year.drive import FAILOVER, People
from runbook import section_of

if TYPE_CHECKING:
    from runbook_move.drive import MoveSite

ITS_SERVER = "module_databases/its-server.md"
UPGRADE = "upgrade-postgres.md"
REQUESTS = 40
place.PROGRAMS = (*place.PROGRAMS, "pg_dump", "pg_dumpall")


def put_pgbouncer_in_front(site: "MoveSite") -> None:
    site.follow(ITS_SERVER, "1.")


def enter_its_shell(site: "MoveSite") -> None:
    """All pages are those of the module's server from here on. Its replica streams."""
    site.follow(ITS_SERVER, "2.")
    site._functions += f"\n{section_of(site.pages / ITS_SERVER, '2.')}"
    data, replica = site.servers / "own", site.servers / "own-replica"
    own_port = port_of(site.variables["OWN_PLACE"])
    [port] = place.unused_ports(1)
    password = secrets.token_hex(16)
    for name, folder, number in (("own", data, own_port), ("own-replica", replica, port)):
        for verb in ("start", "stop"):
            how = f"-l {folder}.log -w -m fast -o '-p {number}' {verb}"
            site._program(f"{verb}-{name}", f"pg_ctl -D {folder} {how}")
    site.variables |= {
        "POSTGRES_DATA": str(data),
        "POSTGRES_HBA": str(data / "pg_hba.conf"),
        "START_POSTGRES": "start-own",
        "STOP_POSTGRES": "stop-own",
        "REPLICATOR_PASSWORD": password,
        "REPLICATION": f"postgresql://replicator:{password}@127.0.0.1:{own_port}",
        "REPLICA": site.variables["OWN_POSTGRES"].replace(f":{own_port}/", f":{port}/"),
        "REPLICA_PLACE": site.variables["OWN_PLACE"].replace(own_port, port),
        "REPLICA_DATA": str(replica),
        "START_REPLICA": "start-own-replica",
        "TO_REPLICA": f"host=127.0.0.1 port={port} user=replicator password={password}",
    }
    made = "pg_basebackup"
    site.follow("replicas/add-a-replica.md", "1.", "do", only=lambda commands: made in commands)


def fail_over(site: "MoveSite") -> None:
    site.follow(FAILOVER, "1.")
    site.follow(FAILOVER, "3.")
    named = site.variables
    named["OWN_DIRECT"] = at_port(named["OWN_DIRECT"], port_of(named["REPLICA_PLACE"]))
    named |= {
        "OWN_POSTGRES": named["REPLICA"],
        "OWN_PLACE": named["REPLICA_PLACE"],
        "POSTGRES_DATA": named["REPLICA_DATA"],
        "START_POSTGRES": "start-own-replica",
        "STOP_POSTGRES": "stop-own-replica",
    }


def make_an_empty_server(site: "MoveSite") -> None:
    [port] = place.unused_ports(1)
    data = site.make_server("own-new", port)
    for verb in ("start", "stop"):
        site._program(f"{verb}-own-new", f"pg_ctl -D {data} -l {data}.log -w -m fast {verb}")
    site.variables |= {
        "NEW": at_port(site.variables["OWN_POSTGRES"], port),
        "NEW_PLACE": site.variables["OWN_PLACE"].replace(
            port_of(site.variables["OWN_PLACE"]), port
        ),
        "NEW_DATA": str(data),
        "START_NEW": "start-own-new",
        "STOP_NEW": "stop-own-new",
        "UPGRADE_PASSWORD": secrets.token_hex(16),
    }


def follow_the_new_one(site: "MoveSite") -> None:
    site.follow(UPGRADE, "1.")


def switch(site: "MoveSite") -> None:
    site.follow(UPGRADE, "2.")
    site.home = "NEW"
    port = port_of(site.variables["NEW_PLACE"])
    site.variables["OWN_DIRECT"] = at_port(site.variables["OWN_DIRECT"], port)


def end(site: "MoveSite") -> None:
    site.follow(UPGRADE, "3.")
    site.home, site.variables["OWN_POSTGRES"] = "OWN_POSTGRES", site.variables["NEW"]


# On a busy machine a pause may be longer than people wait.
PAUSED = ("its failover", "the new one follows", "the switch")
LEADS_TO = """
psql "$OWN_DIRECT" -XAtc "SHOW port"
psql "$POOLED/orders-app" -XAtc "SHOW port"
in_app sh -c 'psql "$MODULE_ORDERS_DATABASE_DIRECT_URL" -XAtc "SHOW port"'
"""
STEPS: tuple[tuple[str, Callable[["MoveSite"], None]], ...] = (
    ("its names", put_pgbouncer_in_front),
    ("its replica", enter_its_shell),
    ("its failover", fail_over),
    ("an empty server", make_an_empty_server),
    ("the new one follows", follow_the_new_one),
    ("the switch", switch),
    ("the end", end),
)


async def used_as_the_pages_say(site: "MoveSite", people: People) -> dict[str, Any]:
    """For each step the longest request in ms, and the port of the server: as it is, and as
    PgBouncer and the migrations know it."""
    said = {}
    for name, step in STEPS:
        people.load.announced = name in PAUSED
        await people.while_they_use_it(name, lambda step=step: step(site))
        await people.until_used(REQUESTS)
        ports = await asyncio.to_thread(site.follow_text, LEADS_TO)
        said[name] = {"longest": people.steps[-1].milliseconds.at(100), "ports": ports.split()}
    return said


def port_of(its_place: str) -> str:
    return re.findall(r"port=(\d+)", its_place)[0]


def at_port(url: str, port: str) -> str:
    return re.sub(r":\d+/", f":{port}/", url)
