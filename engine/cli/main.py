"""Entry point of all commands, and the exit codes."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import engine
from engine import last_words
from engine.cli import standard_streams
from engine.cli.outcome import Outcome, strict_json
from engine.cli.signals import interruptible
from engine.cli.words import PROGRAM, Parser
from engine.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_INTERRUPTED, EngineError, InputError

COMMANDS = {
    "list": ("engine.cli.listing", "show methods, backbones, data sets, recipes, searches and analyses"),
    "train": ("engine.cli.train", "train a recipe, or go on with its interrupted run"),
    "compare": ("engine.cli.compare", "train several recipes under one budget, and put them into one table"),
    "sweep": ("engine.cli.sweep", "search the fields of a recipe with Ray Tune"),
    "evaluate": ("engine.cli.evaluate", "score the network of a run on its test images"),
    "analyse": ("engine.cli.analyse", "look into trained networks: calibration, similarity, Grad-CAM, ..."),
    "export": ("engine.cli.export", "write the plain network of a run to one file"),
    "estimate": ("engine.cli.estimate", "say what a recipe would need, and how fast it could be, on which cut"),
    "measure": ("engine.cli.measure", "measure speed and memory beside other ways of training the same network"),
    "doctor": ("engine.cli.doctor", "say what works on this machine, what does not, and what to do"),
}
"""Module and description of each command; the module is imported when its command is chosen."""

_EXIT_CODES = """exit codes:
  0    the command did what was asked
  1    a bug of this program; please report it
  2    the input or this machine cannot be used as it is; the message says what to change
  3    a learner failed while it worked; the newest checkpoint is whole
  130  interrupted; the same command goes on"""


def _help() -> str:
    commands = "\n".join(f"  {name:<10}{description}" for name, (_, description) in COMMANDS.items())
    return (
        f"usage: {PROGRAM} COMMAND [...]\n\n"
        f"Train neural networks in parallel with local losses, on Ray.\n\ncommands:\n{commands}\n\n"
        "options:\n  -h, --help  show this, or with a command its options\n  --version   show the version\n"
        "  --json      after any command: print one JSON object as the last line of stdout\n\n"
        f"first steps:\n  {PROGRAM} list recipes\n  {PROGRAM} train infopro_digits\n\n{_EXIT_CODES}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    standard_streams.prepare()
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    finally:
        standard_streams.settle()


def _main(words: Sequence[str]) -> int:
    as_json = "--json" in words
    try:
        with last_words.said_as_object(as_json), interruptible():
            outcome = _run(words)
    except EngineError as error:
        return _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        # Whoever read the progress is gone, which ended the work in its middle.
        return EXIT_INTERRUPTED
    except Exception as error:
        standard_streams.complain(traceback.format_exc().splitlines())
        text = f"{type(error).__name__}: {error}"
        report = f"this is a bug; please report it with the lines above and with what `{PROGRAM} doctor` says"
        return _fail(f"{text}\n{report}", EXIT_BUG, as_json)
    return _print(outcome, as_json)


def _unknown(command: str) -> str:
    from engine.recipes import nearest

    if not command:
        return f"no command is given; there is {', '.join(COMMANDS)}\n`{PROGRAM} --help` describes them"
    kind = "option before the command" if command.startswith("-") else "command"
    choices = ["--help", "--version"] if command.startswith("-") else list(COMMANDS)
    return f"{command}: there is no such {kind}{nearest(command, choices)}"


def _run(words: Sequence[str]) -> Outcome:
    command = words[0] if words else ""
    if command in ("-h", "--help"):
        return Outcome([_help()], {"commands": list(COMMANDS)})
    if command == "--version":
        return Outcome([f"{PROGRAM} {engine.__version__}"], {"version": engine.__version__})
    if command not in COMMANDS:
        raise InputError(_unknown(command))
    _check_current_folder()
    place, description = COMMANDS[command]
    module: Any = importlib.import_module(place)
    parser = Parser(command, f"{description[0].upper()}{description[1:]}.", getattr(module, "EPILOG", ""))
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    module.add_arguments(parser)
    try:
        options = parser.read(words[1:])
    except SystemExit:  # after --help
        return Outcome(parser.help_text.splitlines(), {"command": command, "help": parser.help_text})
    outcome: Outcome = module.run(options)
    return outcome


def _check_current_folder() -> None:
    """Refuse a current folder that is no more: libraries below torch end the process when they find none."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(
            "the current folder has been removed; change to one that exists, as with `cd ~`, and give the same command"
        ) from error


def _fail(message: str, exit_code: int, as_json: bool) -> int:
    first, *more = message.splitlines() or [""]
    standard_streams.complain([f"{PROGRAM}: error: {first}", *(f"  {line}" for line in more)])
    outcome = Outcome([], {"error": message, "exit_code": exit_code}, exit_code)
    return _print(outcome, True) if as_json else exit_code


def _print(outcome: Outcome, as_json: bool) -> int:
    lines = [json.dumps(strict_json(outcome.values))] if as_json else outcome.lines
    cause = standard_streams.write_result(lines) if lines else None
    if cause is None:
        return outcome.exit_code
    where = f"; the result is in {outcome.values['run_dir']}" if "run_dir" in outcome.values else ""
    standard_streams.complain([f"{PROGRAM}: error: standard output cannot be written to: {cause}{where}"])
    return outcome.exit_code or EXIT_BAD_INPUT
