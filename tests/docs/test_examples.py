"""Do the examples of the pages run, and print what the pages say?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main


def _commands(block: Any) -> list[tuple[str, list[str]]]:
    """Return each command of a block, with the lines that it should print."""
    if block.language == "bash":
        return [(line, []) for line in block.logical_lines if line.strip()]
    assert block.language == "console", f"line {block.line}: {block.language} cannot be run"
    found: list[tuple[str, list[str]]] = []
    for line in block.logical_lines:
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def _assert_printed(expected: list[str], printed: str, command: str) -> None:
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for wanted in expected:
        start = " ".join(wanted.split())
        assert any(line.startswith(start) for line in lines), f"{command}\ndoes not print, in this order:\n{wanted}"


def run_page(page: Any, slow: bool, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the blocks of a page in order, in the current folder; return how many ran."""
    names: dict[str, Any] = {"__name__": "example"}
    ran = 0
    for block in page.blocks:
        if block.run is None or (block.run == "slow" and not slow):
            continue
        ran += 1
        if block.run.startswith("file "):
            Path(block.run.removeprefix("file ")).write_text(block.text)
            compile(block.text, f"{page}:{block.line}", "exec")
        elif block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
        else:
            for command, expected in _commands(block):
                program, *words = shlex.split(command, comments=True)
                assert program == "local-learning", f"{page}:{block.line}: only local-learning can be run"
                capsys.readouterr()
                code = main(words)
                printed = capsys.readouterr()
                assert code == 0, f"{page}:{block.line}: {command}\n{printed.err}"
                _assert_printed(expected, printed.out, command)
    return ran


def test_quick_examples(
    quick_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(quick_page, False, capsys) > 0


@pytest.mark.slow
def test_slow_examples(
    slow_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(slow_page, True, capsys) > 0


def test_an_output_that_is_not_printed_would_be_seen() -> None:
    _assert_printed(["a 1", "b"], "a   1 and more\nx\nb\n", "command")
    for wrong in (["b", "a 1"], ["c"], ["a 2"]):
        with pytest.raises(AssertionError, match="does not print"):
            _assert_printed(wrong, "a   1 and more\nx\nb\n", "command")
