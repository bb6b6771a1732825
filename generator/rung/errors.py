class RungError(Exception):
    """Something failed; the message is for the person and says what to do next."""

    exit_code = 1


class UsageError(RungError):
    """What was typed cannot be carried out."""

    exit_code = 2
