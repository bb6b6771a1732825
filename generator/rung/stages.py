from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    number: int
    name: str
    users: str
    breaks: str
    arrives: str
    measure: str
    """How its bottleneck is seen, before anything is done about it."""

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
        arrives="slow-query reports, connection pooling and replica routing",
        measure="duration_ms by route in the logs; answers 503 because every connection is busy; "
        "the database's processor above 70% for an hour, with an index behind every query",
    ),
)


def named(number: int) -> str:
    """How to speak of a stage, also of one that only another template knows."""
    return next((str(stage) for stage in LADDER if stage.number == number), f"stage {number}")
