from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    number: int
    name: str
    users: str
    breaks: str
    arrives: str

    def __str__(self) -> str:
        return f"stage {self.number} ({self.name})"


LADDER = (
    Stage(
        number=1,
        name="foundation",
        users="to 10,000 users",
        breaks="nothing yet: find the product",
        arrives="one monolith and one Postgres",
    ),
    Stage(
        number=2,
        name="database",
        users="to 100,000 users",
        breaks="Postgres: slow queries, its processor, its connections",
        arrives="slow-query reports, connection pooling and replica routing",
    ),
)


def named(number: int) -> str:
    """How to speak of a stage, also of one that only another template knows."""
    return next((str(stage) for stage in LADDER if stage.number == number), f"stage {number}")
