"""The wizard's keys: back to the previous question, and a last look at all answers."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from rung.errors import RungError, is_printable, printable

KEYS = "Enter answers, Shift-Tab goes back a question, Ctrl-C stops."


class Keyboard(Vt100Input):
    """Copier has no way back, but gives its answers when Ctrl-C stops a question."""

    went_back = False

    def read_keys(self) -> list[KeyPress]:
        # A byte that is not UTF-8 arrives as a lone surrogate, which no file can hold.
        pressed = [press for press in super().read_keys() if is_printable(press.key)]
        return [self._for_copier(press) for press in pressed]

    def _for_copier(self, press: KeyPress) -> KeyPress:
        if press.key != Keys.BackTab:
            return press
        self.went_back = True
        return KeyPress(Keys.ControlC)


@contextmanager
def going_back() -> Iterator[Keyboard]:
    keyboard = Keyboard(sys.stdin)
    with create_app_session(input=keyboard):
        yield keyboard


def before_the_last(answers: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Copier's AnswersMap without the answer of the last question, which is asked again."""
    asked = [key for key in answers.user if key not in given and key not in answers.hidden]
    return {key: answers.user[key] for key in asked[:-1]}


def agreed(answers: Mapping[str, Any]) -> bool:
    print()
    for key, answer in answers.items():
        if not key.startswith("_"):
            print(f"  {key:16} {printable(str(answer))}")
    try:
        said = input("\nEnter creates the repo, b goes back a question, Ctrl-C stops: ")
    except EOFError as error:
        raise RungError("Stopped. Nothing was created.") from error
    return said.strip().lower() not in {"b", "back"}
