# Rung's file: advancing to another stage may change it.
"""python -m app.infra.s3.orphans --rows QUERY [--delete]: what lies in S3 and no row knows.

There is none but after an accident: a database set back to yesterday, say.
"""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.infra import environment
from app.infra.s3.rows import Rows, command_with_rows, ends_in_words
from app.infra.s3.settings import FileSettings, bucket_of
from app.infra.stored_files import is_valid

# A row is there before its file. What is younger might belong to one that is just being written.
LEFT_ALONE_FOR = timedelta(days=1)


def main(given: Sequence[str] | None = None) -> None:
    parser = command_with_rows("app.infra.s3.orphans")
    parser.add_argument("--delete", action="store_true", help="them, after they were listed")
    arguments = parser.parse_args(given)
    settings = environment.read(FileSettings)
    if settings.bucket is None:
        sys.exit("FILES_STORE is folder: there is no bucket to look at.")
    with ends_in_words():
        asyncio.run(_sweep(settings, Rows(arguments.rows), delete=arguments.delete))


async def _sweep(settings: FileSettings, rows: Rows, *, delete: bool) -> None:
    if not await rows.are_there():
        sys.exit("The query of --rows finds no file at all: by it, everything would be an orphan.")
    before = datetime.now(UTC) - LEFT_ALONE_FOR
    found = 0
    async with bucket_of(settings) as bucket:
        async for page in bucket.pages():
            keys = [one.key for one in page if is_valid(one.key) and one.stored_at < before]
            known = {row.key for row in await rows.among(keys)}
            for key in keys:
                if key not in known:
                    found += 1
                    print(key)
                    if delete:
                        await bucket.delete(key)
    print(f"{found:,} orphan(s) {'deleted' if delete else 'found'}")


if __name__ == "__main__":
    main()
