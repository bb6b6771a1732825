# Rung's file: advancing to another stage may change it.
"""The cut and its way back: one database refuses writes, then the other one accepts them."""

import asyncio
import time

from app.infra.module_databases import settings
from app.infra.module_databases.move import fence
from app.infra.module_databases.move.copying import progress, seconds_behind
from app.infra.module_databases.move.preflight import complaints
from app.infra.module_databases.move.sequences import advance
from app.infra.module_databases.move.shape import VIEWS
from app.infra.module_databases.move.sides import Move, Refused, TooSlow, Way, patiently

REPLAY_SECONDS = 2.0
HAND_OVER_SECONDS = 10.0  # neither side takes writes meanwhile
FOLLOWS_WITHIN_TRIES = 5

OTHERS = (
    "Copies that follow the move write there already. Others answer 503 to writes: deploy them {}."
)

GONE = "SELECT bool_and(to_regclass(name) IS NULL) FROM unnest($1::text[]) AS name"


async def cut(move: Move) -> str:
    if not await move.there.is_subscribed():
        raise Refused(f"No copy of {move.module} runs. Begin it with: copy")
    if not (await progress(move)).is_copied:
        raise Refused(f"The copy of {move.module} is not finished. Wait for it with: copy")
    # A cut that was killed between its commits is not checked: writers wait until it ends.
    is_open = not await fence.is_closed(move.old, move)
    if is_open and (found := await complaints(move, is_copied=True)):
        raise Refused("\n".join(found))
    # Replicate the way back from before the cut, so that it has every later write.
    await move.back.begin(copy_data=False)
    if is_open:
        await _refresh_views(move, move.there)
    done = await _hand_over(move, move.there, after=move.back)
    return f"{done} {OTHERS.format(f'with {_variable(move)}')}"


async def back(move: Move) -> str:
    if not await move.back.is_subscribed():
        raise Refused(f"{move.module} has no way back: no cut was made, or it has ended.")
    done = await _hand_over(move, move.back, after=move.there)
    await _refresh_views(move, move.back)  # the way back does not wait for it
    return f"{done} {OTHERS.format(f'without {_variable(move)}')}"


async def _refresh_views(move: Move, way: Way) -> None:
    for name, is_materialized in await way.target.rows(VIEWS, move.tables):
        if is_materialized:  # replication does not fill it
            await way.target.run(f"REFRESH MATERIALIZED VIEW {name}")


def _variable(move: Move) -> str:
    return f"{settings.prefix_of(move.module)}URL"


async def _hand_over(move: Move, way: Way, after: Way) -> str:
    """Between its two commits neither side takes writes, and copies that follow wait. After a kill
    there, both `cut` and `back` continue from that state."""
    closed = await fence.is_closed(way.source, move), await fence.is_closed(way.target, move)
    if closed == (True, False):
        return f"{way.target.name} takes the writes of {move.module} already."
    if closed == (False, False):
        raise Refused(
            f"Both databases take writes of {move.module}, so no step can tell which is right."
        )
    for each in (way, after):
        await _refuse_if_behind(each)
    begun = time.monotonic() if closed[0] else await _close(move, way)
    try:
        async with asyncio.timeout(HAND_OVER_SECONDS):
            await advance(way)
            await fence.open_again(way.target, move)
    except TimeoutError:
        raise Refused(
            f"A server does not answer, and neither database takes writes of {move.module}. Run cut"
            " or back as soon as it answers."
        ) from None
    return (
        f"{way.target.name} takes the writes of {move.module}. The fence held writers up for"
        f" {(time.monotonic() - begun) * 1000:.0f} ms."
    )


async def _refuse_if_behind(way: Way) -> None:
    await way.refuse_if_lost()
    for _ in range(FOLLOWS_WITHIN_TRIES):  # it may have begun a moment ago
        if await seconds_behind(way) is not None:
            return
    raise Refused(
        f"{way.target.name} does not follow {way.source.name}: read the logs of both servers."
        " Nothing has changed."
    )


async def _close(move: Move, way: Way) -> float:
    """Returns when writers began to wait."""

    async def close() -> float:
        begun = time.monotonic()
        await fence.hold(way.source, move)
        # This lock also waits for writers that did not take the first one. It lets readers pass.
        await way.source.run(f"LOCK TABLE {', '.join(way.tables)} IN SHARE ROW EXCLUSIVE MODE")
        if not await way.replays(await way.source.position(), within=REPLAY_SECONDS):
            raise TooSlow(f"{way.target.name} did not replay within {REPLAY_SECONDS:.0f} s")
        await fence.close(way.source, move)
        return begun

    return await patiently(way.source, close)


async def own(move: Move) -> str:
    """The old tables refuse writes until a migration drops them: their rows are old now."""
    are_gone = await move.old.value(GONE, move.tables)
    has_moved = await fence.is_closed(move.old, move) and not await fence.is_closed(move.new, move)
    if not (are_gone or has_moved):
        raise Refused(f"{move.module} still lives in the old database. Run cut first.")
    await move.back.end()
    await move.there.end()
    if are_gone:  # until then a copy that still follows asks the fences
        await fence.remove(move.new, move)
        await fence.remove(move.old, move)
        return f"{move.module} has its own database, and nothing of the move is left."
    return (
        f"{move.module} has its own database, and there is no way back from here. The old tables"
        f" take no writes. Write the migration that drops them: make module-drop NAME={move.module}"
        " (docs/guide/module_databases/second-database.md). Release it, then run this again."
    )
