# Rung's file: advancing to another stage may change it.
"""python -m app.infra.module_databases.slow_queries: the report of each database."""

import json
import sys

from app.infra import environment
from app.infra.module_databases import settings
from app.infra.slow_queries.__main__ import ServerSettings, parsed, reported
from app.infra.slow_queries.report import Report


def main() -> None:
    arguments = parsed()
    common = reported(environment.read(ServerSettings), arguments.limit)
    reports: dict[str, Report] = {}
    problems = common.problems
    for module in settings.with_own_database():
        try:
            own = settings.read_as(ServerSettings, module)
            reports[module] = reported(own, arguments.limit)
        except SystemExit as error:
            problems.append(f"Database of {module}: {error}")
    if arguments.json:
        modules = {module: report.model_dump(mode="json") for module, report in reports.items()}
        print(json.dumps(common.model_dump(mode="json") | {"modules": modules}, indent=2))
    else:
        print(common.as_text())
        for module, report in reports.items():
            print(f"\n\n=== The database of {module}, {report.database}\n\n{report.as_text()}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
