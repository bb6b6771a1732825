# Rung's file: advancing to another stage may change it.
"""python -m app.infra.s3.orphans [--delete]: list the files in S3 that no row names.

They appear after an accident, for example when the database was restored to yesterday.
"""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.infra import environment
from app.infra.failures import ends_in_words
from app.infra.s3.rows import Rows, command_with_rows, rows_of
from app.infra.s3.settings import FileSettings, bucket_of
from app.infra.stored_files import is_valid

# A row is written before its file, but its transaction may still be open.
LEFT_ALONE_FOR = timedelta(days=1)

ANOTHER_DATABASE = """{}: rows of this database may name files too, and FILES_ROWS reads only the
common one. Write the keys of these rows into a text file, one a line, and add --also with its name.
If no row there has a key, give an empty text file."""


def main(given: Sequence[str] | None = None) -> None:
    parser = command_with_rows("app.infra.s3.orphans", __doc__)
    parser.add_argument("--delete", action="store_true", help="delete each after it was listed")
    parser.add_argument(
        "--also", type=Path, metavar="FILE", help="further keys that rows name, one a line"
    )
    arguments = parser.parse_args(given)
    settings = environment.read(FileSettings)
    if settings.bucket is None:
        sys.exit("FILES_STORE is folder, so there is no bucket to look at.")
    own = sorted(name for name in os.environ if re.fullmatch(r"MODULE_\w+_DATABASE_URL", name))
    if own and arguments.delete and not arguments.also:
        sys.exit(ANOTHER_DATABASE.format(", ".join(own)))
    further: set[str] = set()
    until = datetime.now(UTC)
    if arguments.also:
        try:
            with arguments.also.open(encoding="utf-8") as lines:
                further = set(lines.read().splitlines())
                until = datetime.fromtimestamp(os.fstat(lines.fileno()).st_mtime, UTC)
        except (OSError, UnicodeError) as error:
            parser.error(f"--also {arguments.also}: {error}")
    with ends_in_words():
        sweep = _sweep(settings, rows_of(arguments), further, until, delete=arguments.delete)
        asyncio.run(sweep)


async def _sweep(
    settings: FileSettings, rows: Rows, further: set[str], until: datetime, *, delete: bool
) -> None:
    """`further`: keys that rows of other databases named at the time `until`."""
    if not await rows.are_there():
        sys.exit("FILES_ROWS finds no file, so each file would be an orphan. Check the query.")
    before = until - LEFT_ALONE_FOR
    found = 0
    async with bucket_of(settings) as bucket:
        async for page in bucket.pages():
            keys = [one.key for one in page if is_valid(one.key) and one.stored_at < before]
            known = {row.key for row in await rows.among(keys)}
            for key in keys:
                if key not in known and key not in further:
                    found += 1
                    print(key)
                    if delete:
                        await bucket.delete(key)
    print(f"{found:,} orphan(s) {'deleted' if delete else 'found'}")


if __name__ == "__main__":
    main()
