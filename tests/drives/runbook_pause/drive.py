"""Follows module_databases/move-by-pausing.md there, back, there and to its end, under load.

Runs beside runbook_move, and as it does: python -m runbook_pause.drive
"""

from typing import Any

from operators_year.drive import report_on
from runbook_move.drive import PAGE, MoveSite, moved

PAUSING = "module_databases/move-by-pausing.md"
WAY = (
    ("prepared", PAGE, "1.", "", "", "POSTGRES"),
    ("copied", PAGE, "2.", "", "", "POSTGRES"),
    ("names", PAUSING, "1.", "", "", "POSTGRES"),
    ("cut", PAUSING, "2.", "", "", "OWN_POSTGRES"),
    ("back", PAUSING, "2.", "back", "", "POSTGRES"),
    ("cut again", PAUSING, "2.", "do", "", "OWN_POSTGRES"),
    ("own", PAGE, "4.", "", "", "OWN_POSTGRES"),
)


async def paused(site: MoveSite) -> dict[str, Any]:
    return await moved(site, WAY)


if __name__ == "__main__":
    report_on(MoveSite, paused)
