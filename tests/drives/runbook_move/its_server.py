"""Follows module_databases/its-server.md once the module has its own server: names in PgBouncer,
a planned failover to a replica of it, an upgrade to a new server and back, the loss of that, and a
backup of the server that is left, which recovers rows that a mistake deleted.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import place
from operators_year.drive import FAILOVER, People, lose_the_primary
from runbook import section_of

if TYPE_CHECKING:
    from runbook_move.drive import MoveSite

ITS_SERVER = "module_databases/its-server.md"
UPGRADE = "upgrade-postgres.md"
BACKUP = "backup.md"
REQUESTS = 40
ORDERS = "SELECT id FROM orders ORDER BY id"
place.PROGRAMS = (*place.PROGRAMS, "pg_dump", "pg_dumpall")


def put_pgbouncer_in_front(site: "MoveSite") -> None:
    site.follow(ITS_SERVER, "1.")


def enter_its_shell(site: "MoveSite") -> None:
    """All pages are those of the module's server from here on. Its replica streams."""
    site.follow(ITS_SERVER, "2.")
    lines = section_of(site.pages / ITS_SERVER, "2.").splitlines()
    # A person pastes it once, and then sets the names that it takes away.
    site._functions += "\n".join(["", *(one for one in lines if not one.startswith("unset "))])
    data = site.servers / "own"
    make_programs(site, data, port_of(site.variables["OWN_PLACE"]))
    make_a_replica(site, data)


def make_a_replica(site: "MoveSite", of: Path) -> None:
    named = site.variables
    own_port, replica = port_of(named["OWN_PLACE"]), Path(f"{of}-replica")
    [port] = place.unused_ports(1)
    make_programs(site, replica, port)
    password = named["REPLICATOR_PASSWORD"]
    named |= {
        "POSTGRES_DATA": str(of),
        "POSTGRES_HBA": str(of / "pg_hba.conf"),
        "START_POSTGRES": f"start-{of.name}",
        "STOP_POSTGRES": f"stop-{of.name}",
        "REPLICATION": f"postgresql://replicator:{password}@127.0.0.1:{own_port}",
        "REPLICA": at_port(named["OWN_POSTGRES"], port),
        "REPLICA_PLACE": named["OWN_PLACE"].replace(own_port, port),
        "REPLICA_DATA": str(replica),
        "START_REPLICA": f"start-{replica.name}",
        "STOP_REPLICA": f"stop-{replica.name}",
        "TO_REPLICA": f"host=127.0.0.1 port={port} user=replicator password={password}",
    }
    made = "pg_basebackup"
    site.follow("replicas/add-a-replica.md", "1.", "do", only=lambda commands: made in commands)


def make_programs(site: "MoveSite", data: Path, port: str) -> None:
    for verb in ("start", "stop", "restart"):
        how = f"-l {data}.log -w -m fast -o '-p {port}' {verb}"
        site._program(f"{verb}-{data.name}", f"pg_ctl -D {data} {how}")


def fail_over(site: "MoveSite") -> None:
    site.follow(FAILOVER, "1.")
    site.follow(FAILOVER, "3.")
    named = site.variables
    named |= {"OWN_POSTGRES": named["REPLICA"], "OWN_PLACE": named["REPLICA_PLACE"]}
    for name in ("START_{}", "STOP_{}", "{}_DATA"):
        named[name.format("POSTGRES")] = named[name.format("REPLICA")]
    lead_to(site, "OWN_PLACE")


def lead_to(site: "MoveSite", its_place: str) -> None:
    """Where the module's tables are from now on."""
    named = site.variables
    named["OWN_DIRECT"] = at_port(named["OWN_DIRECT"], port_of(named[its_place]))


def make_an_empty_server(site: "MoveSite") -> None:
    [port] = place.unused_ports(1)
    data = site.make_server("own-new", port)
    make_programs(site, data, port)
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
    lead_to(site, "NEW_PLACE")


def switch_back(site: "MoveSite") -> None:
    site.follow(UPGRADE, "2.", "back")
    site.home = "OWN_POSTGRES"
    lead_to(site, "OWN_PLACE")


def end(site: "MoveSite") -> None:
    site.follow(UPGRADE, "3.")
    named = site.variables
    named |= {"OWN_POSTGRES": named["NEW"], "OWN_PLACE": named["NEW_PLACE"]}
    site.home = "OWN_POSTGRES"


def lose_and_recover_it(site: "MoveSite") -> dict[str, Any]:
    return {"its server lost": lose_it(site), "its server recovered": recover_it(site)}


def lose_it(site: "MoveSite") -> dict[str, Any]:
    """The new server gets a replica and fails, while nobody uses it."""
    named = site.variables
    named |= {"POSTGRES": named["OWN_POSTGRES"], "POSTGRES_PLACE": named["OWN_PLACE"]}
    make_a_replica(site, Path(named["NEW_DATA"]))
    lost = lose_the_primary(site)
    lead_to(site, "OWN_PLACE")
    return lost | {"ports": site.follow_text(LEADS_TO).split()}


def recover_it(site: "MoveSite") -> dict[str, Any]:
    """A mistake deletes each order of the module, while nobody uses it."""
    become_postgres_user(site)
    site.follow(BACKUP, "1.")
    rehearsal = site.follow(BACKUP, "2.")
    written = site.query(ORDERS)
    [until] = site.query("SELECT clock_timestamp()")
    site.query("TRUNCATE orders CASCADE")
    site.query("SELECT pg_switch_wal()")
    site.variables["UNTIL"] = until
    site.follow(BACKUP, "3.")
    # Sessions and files belong to the common database.
    site.follow(BACKUP, "4.", only=lambda commands: "login_sessions" not in commands)
    return {"rehearsal": rehearsal, "written": written, "recovered": site.query(ORDERS)}


def become_postgres_user(site: "MoveSite") -> None:
    """Has the surroundings of `sudo -iu postgres` on the module's server."""
    named = site.variables
    keys = site.s3.variables("backups")
    port, data = port_of(named["OWN_PLACE"]), Path(named["POSTGRES_DATA"])
    password, folder = re.split("[:@]", named["OWN_POSTGRES"])[2], named["POSTGRES_DATA"]
    # The commands of this site are root's.
    own = "" if os.geteuid() else f"[ ! -d {data} ] || chown -R {place.NOBODY} {data}\n"
    for verb in ("start", "restart"):
        program = site.programs / f"{verb}-{data.name}"
        first, then = program.read_text(encoding="utf-8").split("\n", 1)
        program.write_text(f"{first}\n{own}{then}", encoding="utf-8")
    named |= {
        **{"PGHOST": "127.0.0.1", "PGPORT": port, "PGDATABASE": "app", "PGDATA": folder},
        **{"PGUSER": "postgres", "PGPASSWORD": password},
        **{name: keys[name] for name in keys if name.startswith("AWS_")},
        "RESTART_POSTGRES": f"restart-{data.name}",
        "BACKUP": "s3://backups/orders",
        "BACKUP_OPTIONS": f"--endpoint-url {site.s3.url}",
    }


# On a busy machine a pause may be longer than people wait.
PAUSED = (
    *("its failover", "the new one follows"),
    *("the switch", "the way back", "the switch again"),
)
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
    ("the way back", switch_back),
    ("the switch again", switch),
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
