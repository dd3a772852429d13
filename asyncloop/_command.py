"""What the commands of the package share: `python -m asyncloop ps`, `asyncloop.jupyter`."""

import argparse
from typing import NoReturn

__all__ = ["Parser", "Trouble"]


class Trouble(Exception):
    """One line of why it cannot be done."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(2, f"{self.prog}: {message}\n")
