"""The entry point of `rung`: each failure becomes one line on stderr and an exit code."""

import io
import locale
import os
import signal
import sys
from types import TracebackType

from rung.errors import RungError, printable, reason_of, shortened, without_password
from rung.interrupts import ignore_signals


def main() -> None:
    # If the parent process ignores this signal, this process does so too. Then each failed command
    # of git looks like a success.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _open_closed_files()
    _restart_with_utf8()
    sys.excepthook = _report_bug
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Printing a file name that is not UTF-8 must not fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # Reading such a letter must not fail either.
    code = _run()
    ignore_signals()
    sys.exit(code)


def _run() -> int:
    try:
        from rung.cli import run  # Importing Typer is slow, so a Ctrl-C may arrive here.

        code = run()
        sys.stdout.flush()  # A full disk fails here.
    except KeyboardInterrupt:
        return _fail("Stopped.", 1)
    except RungError as error:
        return _fail(str(error), error.exit_code, *error.lines)
    except BrokenPipeError:  # The reader has closed the pipe, as `head` does.
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _fail(f"Cannot continue: {reason_of(error)}.", 1)
    return code


def _fail(message: str, code: int, *lines: str) -> int:
    ignore_signals()
    text = "\n".join(printable(shortened(without_password(line))) for line in (message, *lines))
    try:
        print(f"rung: {text}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _drop_output_if_broken()
    return code


def _drop_output_if_broken() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Python flushes again when it exits, and would report the same failure a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report_bug(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, SystemExit):  # PYTHONINSPECT reports it here.
        return
    if os.environ.get("RUNG_TRACEBACK"):
        sys.__excepthook__(kind, error, traceback)
        return
    if issubclass(kind, KeyboardInterrupt):
        _fail("Stopped.", 1)
        return
    failure = f"{kind.__name__}: {' '.join(str(error).split())[:200]}"
    # A foreign package of the same name lacks a module or a name.
    if issubclass(kind, ImportError | AttributeError) and os.environ.get("PYTHONPATH"):
        _fail(
            f"{failure}. PYTHONPATH may hide a package that Rung needs. Run this without it: "
            "env -u PYTHONPATH rung …. Set RUNG_TRACEBACK=1 to see where.",
            1,
        )
        return
    _fail(f"This is a bug of Rung: {failure}. Set RUNG_TRACEBACK=1 to see where, and report it.", 1)


def _open_closed_files() -> None:
    """If stdin, stdout or stderr is closed, Python leaves it as None, and the next opened file gets
    its number. A message of git would then go into a project's file."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _restart_with_utf8() -> None:
    """In a locale that is not UTF-8, Python and Copier would misread files and file names."""
    if sys.flags.utf8_mode:
        return
    if locale.getencoding().lower().replace("-", "") == "utf8":
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{locale.getencoding()}:backslashreplace")
    words = [os.fsencode(sys.executable), b"-X", b"utf8", *_words()[1:]]
    os.execv(sys.executable, words)  # noqa: S606


def _words() -> list[bytes]:
    """The command line as bytes. Of EUC-JP, for example, Python cannot encode each word that it has
    decoded."""
    try:
        with open("/proc/self/cmdline", "rb") as file:  # noqa: PTH123
            return file.read().split(b"\0")[:-1]
    except OSError:  # Not Linux.
        return [os.fsencode(word) for word in sys.orig_argv]


if __name__ == "__main__":
    main()
