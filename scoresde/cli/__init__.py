r"""The command line, with nothing that the Python interface cannot do."""

import sys


def main() -> None:
    r"""Runs the command line."""

    try:
        from .app import run
    except ImportError as missing:
        sys.stderr.write(
            f"error: {missing}; install the command line: pip install 'scoresde[cli]'\n"
        )
        raise SystemExit(1) from None
    run()
