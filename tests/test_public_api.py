"""The names that users import, and that importing the package itself costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import engine


def test_every_public_name_exists() -> None:
    for name in engine.__all__:
        assert getattr(engine, name) is not None
        assert name in dir(engine)


def test_the_errors_that_a_training_can_end_with_are_public() -> None:
    told = (engine.train.__doc__ or "").partition("Raises:")[2]
    named = set(re.findall(r"\b[A-Z][A-Za-z]+(?=[,:])", told))
    assert named >= {"RayEnded", "NotRecovered", "DriverPreempted", "LearnerError"}
    assert named <= set(engine.__all__)
    assert issubclass(engine.FolderHeld, engine.RunError)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(engine, "no_such_name")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, engine; print([name for name in ('torch', 'ray', 'pydantic', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
