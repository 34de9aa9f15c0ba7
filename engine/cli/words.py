"""Arguments of the command line, and messages about those that do not exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.errors import InputError, PlanError, RecipeError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

PROGRAM = "local-learning"

FIELD = re.compile(r"[A-Za-z_][\w.]*=")
"""How a word begins that changes a field, such as ``epochs=2``."""

_SHOWN = 40


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


def refuse_field(word: str) -> None:
    """Refuse a change of a field in the place of a recipe; what exists in the current folder is none.

    Raises:
        RecipeError: the word is one.
    """
    if FIELD.match(word) and not os.path.lexists(word):
        raise RecipeError(f"{word}: no recipe is given before it; `{PROGRAM} list recipes` shows them")


def words_of_flags(fields: Sequence[str], on: str | None, address: str | None) -> list[str]:
    """Return the fields that ``--on`` and ``--address`` stand for, without those that are given.

    Args:
        fields: the words ``field=value`` that are given.
        on: the executor, if it is given.
        address: of a Ray cluster, if it is given; alone it means Ray.

    Raises:
        PlanError: a field contradicts a flag.
    """
    given = dict(field.partition("=")[::2] for field in fields)
    wanted = {"plan.executor": on or ("ray" if address else None), "plan.address": address}
    for name, value in wanted.items():
        if value is not None and given.get(name, value) != value:
            raise PlanError(f"{name}={given[name]} contradicts --on or --address, which mean {name}={value}: give one")
    return [f"{name}={value}" for name, value in wanted.items() if value is not None and name not in given]


def command_that_goes_on(folder: Path, resume: str) -> str:
    """Return in words which command goes on in a folder, after one with this ``--resume``."""
    if resume == "auto":
        return "the same command"
    return f"the same command with --run-dir {shlex.quote(str(folder))} --resume auto"


def whole_number(
    text: str, option: str, least: int, most: int, expected: str, error: type[InputError] = InputError
) -> int:
    """Return the whole number that a word is, as `whole_numbers` does for a word that is no list."""
    return _number(text, text, option, least, most, expected, error)


def whole_numbers(
    text: str, option: str, least: int, most: int, expected: str, error: type[InputError] = InputError
) -> tuple[int, ...]:
    """Return the whole numbers in a word such as ``1,2,4``.

    Args:
        text: the word.
        option: to which it was given, such as ``--k``, for the message.
        least: the smallest number that is taken.
        most: the largest.
        expected: what the message says of the right word.
        error: what is raised.

    Raises:
        InputError: of the class `error`: a part of the word is no number, or one that is not taken.
    """
    return tuple(_number(part, text, option, least, most, expected, error) for part in text.split(","))


def _number(part: str, text: str, option: str, least: int, most: int, expected: str, error: type[InputError]) -> int:
    digits = part.strip()
    # Counted first: Python makes no number of more than 4,300 digits, and says so with an error of its own.
    if digits.isascii() and digits.isdigit() and len(digits.lstrip("0")) <= len(str(most)):
        number = int(digits.lstrip("0") or "0")
        if least <= number <= most:
            return number
    raise error(f"{option} {shown(text)}: expected {expected}")


def shown(text: str) -> str:
    """Return a word that was given as a message shows it: in one line, and not longer than that."""
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}... ({len(text):,} characters)"
