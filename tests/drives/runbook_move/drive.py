"""Follows module_databases/move-a-module.md there, back, there and to its end, under load.
Then the module's server gets what its-server.md promises: a failover, an upgrade and back, a loss,
a backup and a recovery.

Runs in a generated repo of stage 4 with all options, beside the live climb's modules and
operators_year: python -m runbook_move.drive
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dev import postgres
from operators_year.drive import WRITTEN, People, Site, prepared, report_on

from runbook_move.its_server import at_port, lose_and_recover_it, port_of, used_as_the_pages_say

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

import place

PAGE = "module_databases/move-a-module.md"
PATCH = "docs/guide/module_databases/orders.patch"
REQUESTS = 40  # between one step and the next
FENCE = re.compile(r"held writers up for (\d+) ms")
EMPTIED = re.compile(r"TRUNCATE .*")
PAUSE = re.compile(r"made all clients wait for (\d+) ms")


class MoveSite(Site):
    home = "POSTGRES"

    def prepare(self) -> None:
        subprocess.run(["git", "apply", PATCH], cwd=self.repo, check=True)
        super().prepare()

    def query(self, sql: str) -> list[str]:
        if sql != WRITTEN:
            return super().query(sql)
        orders, uploads = sql.split(" UNION ALL ")
        return [
            *self._run("psql", self.variables[self.home], "-XAtc", orders).splitlines(),
            *super().query(uploads),
        ]

    def exchange_primary_and_replica(self) -> None:
        """Of the module's own server: its shell takes their names from OWN_…"""
        super().exchange_primary_and_replica()
        named = self.variables
        named |= {"OWN_POSTGRES": named["POSTGRES"], "OWN_PLACE": named["POSTGRES_PLACE"]}

    def _before_the_first_deploy(self) -> None:
        page = (self.pages / PAGE).read_text(encoding="utf-8")
        found = re.search(r"```ini\n(.*?)```", page, re.DOTALL)
        assert found
        conf = Path(self.variables["POSTGRES_CONF"])
        (conf / "replication.conf").write_text(found[1], encoding="utf-8")
        self._make_the_own_server()
        self.follow_text(
            "$RESTART_POSTGRES\n(export MODULE_ORDERS_DATABASE_URL=$OWN_DIRECT; in_app python -m"
            " app.infra.module_databases orders revision --autogenerate -m 'the orders')"
        )

    def _make_the_own_server(self) -> None:
        [port] = place.unused_ports(1)
        self.make_server("own", port)
        named = self.variables
        named["OWN_POSTGRES"] = at_port(named["POSTGRES"], port)
        named["OWN_DIRECT"] = at_port(named["DIRECT"], port)
        named["OWN_PLACE"] = named["POSTGRES_PLACE"].replace(self._port(), port)
        app = re.split("[:@]", named["DIRECT"])[2]
        server = named["OWN_POSTGRES"].rpartition("/")[0]
        role = f"CREATE ROLE app LOGIN PASSWORD '{app}'"
        self._run("psql", f"{server}/postgres", "-c", role, "-c", "CREATE DATABASE app OWNER app")

    def make_server(self, name: str, port: str) -> Path:
        """Runs with the configuration and the superuser's password of the common one."""
        data, old = self.servers / name, self.servers / "primary"
        secret = self.servers / "password"
        secret.write_text(re.split("[:@]", self.variables["POSTGRES"])[2], encoding="utf-8")
        options = ["--username=postgres", f"--pwfile={secret}", "--auth=scram-sha-256"]
        self._run("initdb", "-D", str(data), *options, "--encoding=UTF8", "--locale=C")
        secret.unlink()
        conf = (old / "postgresql.conf").read_text(encoding="utf-8")
        added = conf[conf.index("listen_addresses = '127.0.0.1'") :].replace(self._port(), port)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(added.replace("include_dir 'conf.d'", f"include_dir '{old}/conf.d'"))
        self._run("pg_ctl", "-D", str(data), "-l", f"{data}.log", "-w", "start")
        return data

    def _port(self) -> str:
        return port_of(self.variables["POSTGRES_PLACE"])


type Then = Callable[[MoveSite, People], Awaitable[dict[str, Any]]]

WAY = (
    ("prepared", PAGE, "1.", "", "", "POSTGRES"),
    ("copied", PAGE, "2.", "", "", "POSTGRES"),
    ("given up", PAGE, "2.", "back", "", "POSTGRES"),
    ("copied again", PAGE, "2.", "", "", "POSTGRES"),
    ("cut", PAGE, "3.", "", "", "OWN_POSTGRES"),
    ("back", PAGE, "3.", "back", "", "POSTGRES"),
    ("cut again", PAGE, "3.", "do", "moves cut", "OWN_POSTGRES"),
    ("own", PAGE, "4.", "", "", "OWN_POSTGRES"),
)


async def moved_and_used(site: MoveSite) -> dict[str, Any]:
    return await moved(site, then=used_as_the_pages_say, at_last=lose_and_recover_it)


async def moved(
    site: MoveSite,
    way: tuple[tuple[str, ...], ...] = WAY,
    then: Then | None = None,
    at_last: Callable[[MoveSite], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """`at_last` begins when nobody uses the service any more."""
    its_server, its_end = {}, {}
    async with prepared(site):
        people = People(site)
        people.load.start()
        said = {}
        try:
            await people.until_all_are_there()
            for name, page, section, part, only, home in way:
                site.home = home
                said[name] = await people.while_they_use_it(
                    name,
                    lambda page=page, section=section, part=part, only=only: site.follow(
                        page, section, part, only=lambda commands: only in commands
                    ),
                )
                if found := EMPTIED.search(said[name]):
                    own = site.variables["OWN_POSTGRES"]
                    await asyncio.to_thread(site._run, "psql", own, "-c", found[0])
                await people.until_used(REQUESTS)
            if then is not None:
                its_server = await then(site, people)
        finally:
            await people.load.stop()
        there = await asyncio.to_thread(site.query, WRITTEN)
        orders = people.ledger.rows["orders"]
        if at_last is not None:
            its_end = await asyncio.to_thread(at_last, site)
    return {
        "orders": len(orders),
        "lost orders": len(orders - set(there)),
        "fence ms": {
            name: found[1] for name, text in said.items() if (found := FENCE.search(text))
        },
        "pause ms": {
            name: found[1] for name, text in said.items() if (found := PAUSE.search(text))
        },
        "its server": its_server,
        **its_end,
        "own": said["own"].strip().splitlines()[-1],
        "people": people.report(),
        "evidence": people.evidence(),
        "seconds": site.seconds,
    }


if __name__ == "__main__":
    report_on(MoveSite, moved_and_used)
