import sys

from rung.errors import RungError
from rung.interrupts import let_the_outcome_stand


def main() -> None:
    try:
        from rung.cli import app  # Typer takes most of the time in which --help can be interrupted.

        app()
    except KeyboardInterrupt:
        sys.exit("rung: Stopped.")
    except RungError as error:
        print(f"rung: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        let_the_outcome_stand()


if __name__ == "__main__":
    main()
