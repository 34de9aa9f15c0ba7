"""Arguments of the command line, and messages about those that do not exist."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from engine.errors import InputError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

PROGRAM = "local-learning"


class Parser(argparse.ArgumentParser):
    """Reads the words after a command; mistakes are raised, so that they can be told as JSON, too.

    Options and other words may be mixed in any order.
    """

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.help_text = ""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Keep the help for the result of the command, which is printed where all results are."""
        self.help_text = self.format_help()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise InputError(f"{message}\n{self.format_usage().rstrip()}")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options that the words give.

        Raises:
            InputError: names each word that does not exist, with the nearest one that does.
        """
        # Python 3.10 and 3.11 print a usage without positionals unless it is made beforehand.
        self.usage = self.format_usage().removeprefix("usage: ").rstrip().replace("%", "%%")
        options, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise InputError("\n".join(f"{word}: {self._unknown(word, flags)}" for word in unknown))
        return options

    def _unknown(self, word: str, flags: Sequence[str]) -> str:
        if not word.startswith("-"):
            return f"one word too many; `{self.prog} --help` shows what is expected"
        from engine.recipes import nearest

        return f"there is no such option{nearest(word.partition('=')[0], flags)}"
