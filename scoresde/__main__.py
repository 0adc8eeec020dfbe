r"""Runs the command line as `python -m scoresde`."""

from .cli import main

if __name__ == "__main__":
    main()
