"""Does a process say why it ends on the spot, whatever state it is in?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The last objects are gone when Python is about to end, and can start no thread any more.
AT_THE_END = """
class Last:
    def __del__(self):
        last_words.say("gone", 3)
        os._exit(3)

last = Last()
"""
NOBODY_READS = """
os.set_blocking(1, False)
try:
    while True:
        os.write(1, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(1, True)
last_words.say("gone", 3)
os._exit(3)
"""
CLOSED = """
os.close(1)
last_words.say("gone", 3)
os._exit(3)
"""


@pytest.mark.parametrize(
    ("program", "is_read"), [(AT_THE_END, True), (NOBODY_READS, False), (CLOSED, False)], ids=["end", "full", "closed"]
)
def test_it_is_said_and_the_process_ends(program: str, is_read: bool) -> None:
    code = f"import os\nfrom engine import last_words\nlast_words._as_object.set()\n{program}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.wait(60) == 3
        finally:
            process.kill()
        assert process.stderr.read() == b"local-learning: error: gone\n"
        if is_read:
            assert json.loads(process.stdout.read()) == {"error": "gone", "exit_code": 3}


def test_it_is_no_object_unless_asked_for() -> None:
    code = "from engine import last_words\nlast_words.say('gone', 3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "local-learning: error: gone\n")
