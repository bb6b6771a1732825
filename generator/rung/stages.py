"""The ladder: the four stages, what breaks at each, and how to measure it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    number: int
    name: str
    users: str
    breaks: str
    arrives: str
    measure: str
    """How to measure its bottleneck before advancing."""

    def __str__(self) -> str:
        return f"stage {self.number} ({self.name})"


LADDER = (
    Stage(
        number=1,
        name="foundation",
        users="to 10,000 users",
        breaks="nothing yet: find the product",
        arrives="one monolith and one Postgres",
        measure="the product itself: do people come back?",
    ),
    Stage(
        number=2,
        name="database",
        users="to 100,000 users",
        breaks="Postgres: slow queries, its processor, its connections",
        arrives="slow-query reports, pooling, replicas",
        measure="duration_ms by route in the logs; 503 responses because every connection is busy; "
        "the database's processor above 70% for an hour although every query has an index",
    ),
    Stage(
        number=3,
        name="cache",
        users="to 500,000 users",
        breaks="the same reads, again and again",
        arrives="a Redis cache, tracing and metrics",
        measure="`make slow-queries`: most calls repeat cheap statements (a mean below 1 ms), and "
        "a larger machine no longer helps",
    ),
    Stage(
        number=4,
        name="scale-out",
        users="more users",
        breaks="one server: its processor, its folder of files, and every deploy",
        arrives="sessions in Redis, files in S3, N copies",
        measure="the app's processor above 60% for an hour with a cache hit ratio above 90%; "
        "event-loop lag; a deploy or a crash that every user notices",
    ),
)


def named(number: int) -> str:
    """A stage's name. Another template may have stages that this rung does not know."""
    return next((str(stage) for stage in LADDER if stage.number == number), f"stage {number}")
