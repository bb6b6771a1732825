# Rung's file: advancing to another stage may change it.
"""python -m app.infra.s3.orphans [--delete]: list the files in S3 that no row names.

They appear after an accident, for example when the database was restored to yesterday.
"""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.infra import environment
from app.infra.s3.rows import Rows, command_with_rows, ends_in_words, rows_of
from app.infra.s3.settings import FileSettings, bucket_of
from app.infra.stored_files import is_valid

# A row is written before its file, but its transaction may still be open.
LEFT_ALONE_FOR = timedelta(days=1)


def main(given: Sequence[str] | None = None) -> None:
    parser = command_with_rows("app.infra.s3.orphans")
    parser.add_argument("--delete", action="store_true", help="delete each after it was listed")
    arguments = parser.parse_args(given)
    settings = environment.read(FileSettings)
    if settings.bucket is None:
        sys.exit("FILES_STORE is folder, so there is no bucket to look at.")
    with ends_in_words():
        asyncio.run(_sweep(settings, rows_of(arguments), delete=arguments.delete))


async def _sweep(settings: FileSettings, rows: Rows, *, delete: bool) -> None:
    if not await rows.are_there():
        sys.exit("The query of --rows finds no file, so every file would be an orphan.")
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
