# Rung's file: advancing to another stage may change it.
"""The cut and its way back: one side takes no more writes, then the other one takes them."""

import time

from app.infra.module_databases import settings
from app.infra.module_databases.move import fence
from app.infra.module_databases.move.copying import progress, seconds_behind
from app.infra.module_databases.move.sequences import advance
from app.infra.module_databases.move.sides import Move, Refused, TooSlow, Way, patiently

REPLAY_SECONDS = 2.0
FOLLOWS_WITHIN_TRIES = 5

GONE = "SELECT bool_and(to_regclass(name) IS NULL) FROM unnest($1::text[]) AS name"


async def cut(move: Move) -> str:
    if not await move.there.is_subscribed():
        raise Refused(f"No copy of {move.module} runs. Begin it with: copy")
    if not (await progress(move)).is_copied:
        raise Refused(f"The copy of {move.module} is not finished. Wait for it with: copy")
    # It runs before it is needed. Until the cut there is nothing to bring back.
    await move.back.begin(copy_data=False)
    done = await _hand_over(move, move.there, after=move.back)
    variable = f"{settings.prefix_of(move.module)}URL"
    return f"{done} Deploy with {variable} now: copies without it answer 503 to writes."


async def back(move: Move) -> str:
    if not await move.back.is_subscribed():
        raise Refused(f"{move.module} has no way back: no cut was made, or it has ended.")
    done = await _hand_over(move, move.back, after=move.there)
    variable = f"{settings.prefix_of(move.module)}URL"
    return f"{done} Deploy without {variable} now: copies with it answer 503 to writes."


async def _hand_over(move: Move, way: Way, after: Way) -> str:
    """Between its two commits neither side takes writes. Killed there, either step goes on."""
    closed = await fence.is_closed(way.source, move), await fence.is_closed(way.target, move)
    if closed == (True, False):
        return f"{way.target.name} takes the writes of {move.module} already."
    if closed == (False, False):
        raise Refused(
            f"Both databases take writes of {move.module}, so no step can tell which is right."
        )
    for each in (way, after):
        await _refuse_if_behind(each)
    held_up = 0.0 if closed[0] else await _close(move, way)
    begun = time.monotonic()
    await advance(way)
    await fence.open_again(way.target, move)
    refused = time.monotonic() - begun
    return (
        f"{way.target.name} takes the writes of {move.module}. The fence held writers up for"
        f" {held_up * 1000:.0f} ms, and refused them for {refused * 1000:.0f} ms."
    )


async def _refuse_if_behind(way: Way) -> None:
    await way.refuse_if_lost()
    for _ in range(FOLLOWS_WITHIN_TRIES):  # it may have begun a moment ago
        if await seconds_behind(way) is not None:
            return
    raise Refused(
        f"{way.target.name} does not follow {way.source.name}: look into the logs of both servers."
        " Nothing has changed."
    )


async def _close(move: Move, way: Way) -> float:
    """Returns how long writers had to wait, in seconds."""

    async def close() -> float:
        begun = time.monotonic()
        # Writers conflict with this lock, and readers do not. Behind it no writer is half-way.
        await way.source.run(f"LOCK TABLE {', '.join(way.tables)} IN SHARE ROW EXCLUSIVE MODE")
        if not await way.replays(await way.source.position(), within=REPLAY_SECONDS):
            raise TooSlow(f"{way.target.name} did not replay within {REPLAY_SECONDS:.0f} s")
        await fence.close(way.source, move)
        return begun

    begun = await patiently(way.source, close)
    return time.monotonic() - begun


async def own(move: Move) -> str:
    """The old tables refuse writes until a migration drops them: their rows are old now."""
    are_gone = await move.old.value(GONE, move.tables)
    has_moved = await fence.is_closed(move.old, move) and not await fence.is_closed(move.new, move)
    if not (are_gone or has_moved):
        raise Refused(f"{move.module} still lives in the old database. First: cut")
    await move.back.end()
    await move.there.end()
    await fence.remove(move.new, move)
    if are_gone:
        await fence.remove(move.old, move)
        return f"{move.module} has its own database, and nothing of the move is left."
    return (
        f"{move.module} has its own database, and there is no way back from here. The old tables"
        " take no writes: drop them in a migration, then run this again."
    )
