"""How the site is built: `make docs` reads the pages of the whole repository, so that links are the same in both."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import engine  # noqa: E402

project = "local-learning"
version = release = engine.__version__
author = "The local-learning developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# The source folder is the repository; only pages are read from it.
root_doc = "docs/index"
include_patterns = ["docs/**", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "experiments/README.md"]
exclude_patterns = ["docs/_build", "docs/conf.py"]

myst_heading_anchors = 4
nitpicky = True
# Annotations name types of other projects, and the engine's own by the module that defines them.
nitpick_ignore_regex = [("py:(class|data|obj)", ".*"), ("py:exc", "LostStep")]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"
# Numbers, minus signs and dots stay as they are written.
smartquotes = False

# A name such as `bytes` is also the name of a field; a type in a signature is meant, and links nowhere then.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"local-learning {release}"
html_copy_source = False
# The first page lies in a folder; this leads to it.
html_extra_path = ["site"]

_TYPE = r"((?:[^\[\]]|\[[^\[\]]*\])+?)"
_FIELD = r"FieldInfo\(annotation=NoneType, required=True(?:, metadata=\[(.*?)\])?(?:, discriminator='kind')?\)"
_VALIDATOR = re.compile(r", BeforeValidator\(func=\w+, json_schema_input_type=PydanticUndefined\)")
_RANGE = re.compile(rf"Annotated\[{_TYPE}(?:, {_FIELD})?\]")
_BOUND = re.compile(r"\w+\(([^()]*)\)")


def _with_literal_blocks(lines: list[str]) -> list[str]:
    """Return the lines, with formulas and programs, which are indented after an empty line, kept as they are."""
    kept: list[str] = []
    outer = ""
    for place, line in enumerate(lines):
        if line.startswith("    ") and place and not lines[place - 1].strip() and not outer.startswith("    "):
            kept += ["::", ""]
        outer = line if line.strip() else outer
        kept.append(line)
    return kept


def read_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring in Google's style into what Sphinx reads; that of a field is one paragraph already."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(_with_literal_blocks(lines), Config(), app, what, name, obj, options).lines()


def without_fields(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, str] | None:
    """Drop the signature of settings: their fields follow, each with type and default."""
    return ("", "") if what == "class" and dataclasses.is_dataclass(obj) else None


def _short(found: re.Match[str]) -> str:
    bounds = ", ".join(_BOUND.findall(found[2] or ""))
    return f"{found[1]} ({bounds})" if bounds else found[1]


def shorten_ranges(app: Sphinx, doctree: nodes.document) -> None:
    """Write ``int (ge=0, le=64)`` where a field's type is shown with all that pydantic keeps of its range."""
    for annotation in doctree.findall(addnodes.desc_annotation):
        long = annotation.astext()
        short = _RANGE.sub(_short, _VALIDATOR.sub("", long))
        if short != long:
            annotation.children = [nodes.Text(short)]


def setup(app: Sphinx) -> None:
    """Register what is above with Sphinx."""
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", without_fields)
    app.connect("doctree-read", shorten_ranges)
