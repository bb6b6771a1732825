"""Follows module_databases/move-by-pausing.md there, back, there and to its end, under load.
Then the app gets a new role and password, on both servers.

Runs beside runbook_move, and as it does: python -m runbook_pause.drive
"""

import secrets
from typing import Any

from operators_year.drive import report_on
from runbook_move.drive import PAGE, MoveSite, moved

PAUSING = "module_databases/move-by-pausing.md"
ROTATION = "module_databases/rotation.md"
WAY = (
    ("prepared", PAGE, "1.", "", "", "POSTGRES"),
    ("copied", PAGE, "2.", "", "", "POSTGRES"),
    ("names", PAUSING, "1.", "", "", "POSTGRES"),
    ("cut", PAUSING, "2.", "", "", "OWN_POSTGRES"),
    ("back", PAUSING, "2.", "back", "", "POSTGRES"),
    ("cut again", PAUSING, "2.", "do", "", "OWN_POSTGRES"),
    ("own", PAGE, "4.", "", "", "OWN_POSTGRES"),
    ("both roles", "rotation.md", "1.", "", "", "OWN_POSTGRES"),
    ("both in PgBouncer", "pooling/rotation.md", "1.", "", "", "OWN_POSTGRES"),
    ("both on the own server", ROTATION, "1.", "", "", "OWN_POSTGRES"),
    ("undone", ROTATION, "1.", "back", "", "OWN_POSTGRES"),
    ("both there again", ROTATION, "1.", "", "", "OWN_POSTGRES"),
    ("the module's URLs", ROTATION, "2.", "", "", "OWN_POSTGRES"),
    ("the new role", "rotation.md", "2.", "", "", "OWN_POSTGRES"),
    ("only it in PgBouncer", "pooling/rotation.md", "3.", "", "", "OWN_POSTGRES"),
    ("only it on the own server", ROTATION, "3.", "", "", "OWN_POSTGRES"),
    ("only the new role", "rotation.md", "3.", "", "", "OWN_POSTGRES"),
)


class PauseSite(MoveSite):
    def prepare(self) -> None:
        super().prepare()
        new = {"NEW_ROLE": "app_2", "NEW_PASSWORD": secrets.token_hex(16)}
        self.variables |= {"OLD_ROLE": "app", **new}


async def paused(site: PauseSite) -> dict[str, Any]:
    return await moved(site, WAY)


if __name__ == "__main__":
    report_on(PauseSite, paused)
