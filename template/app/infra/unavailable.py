# Rung's file: advancing to another stage may change it.


class Unavailable(Exception):
    """A server that this process depends on did not answer: the caller may try again soon."""
