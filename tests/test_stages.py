from rung.stages import LADDER, named
from variants import QUESTIONS


def test_the_stages_of_the_cli_are_those_of_the_template() -> None:
    offered = QUESTIONS["stage"]["choices"]
    assert [stage.number for stage in LADDER] == list(offered.values())
    # What arrives is shorter there: a question fits 60 columns.
    assert [choice.partition(", ")[0] for choice in offered] == [
        f"{stage.number} {stage.name}: {stage.users}" for stage in LADDER
    ]


def test_a_stage_that_only_another_template_has_still_has_a_name() -> None:
    assert (named(1), named(9)) == ("stage 1 (foundation)", "stage 9")
