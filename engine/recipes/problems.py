"""Says what is wrong with given values, each mistake in one line with the nearest right name."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from pydantic import BeforeValidator, ValidationError

_MOST_LISTED = 24
_MOST_SHOWN = 200
_ASSIGNED = re.compile(r"(?<![\w.])[a-z_]+(?:\.[a-z_]+)*(?==)")


@runtime_checkable
class OpenChoice(Protocol):
    """Part of an annotation, whose choice of settings classes may be joined by others."""

    def joined_by(self, kind: str) -> type | None:
        """Return the class that joins by this ``kind``; None if it is none of that sort."""


def near_names(wrong: str, right: Iterable[str], *, most: int = 1, likeness: float = 0.6) -> list[str]:
    """Return the names that are like a wrong one, the nearest first.

    Args:
        wrong: what was given, of which the beginning is compared.
        right: the names that there are.
        most: how many are returned at most.
        likeness: from 0 for any name to 1 for the same one.
    """
    return difflib.get_close_matches(wrong[:_MOST_SHOWN], list(right), n=most, cutoff=likeness)


def three_nearest(wrong: str, right: Iterable[str]) -> str:
    """Return the three names most like a wrong one, the nearest first."""
    return ", ".join(near_names(wrong, right, most=3, likeness=0.0))


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'epochs'?``, empty if nothing is near."""
    close = near_names(wrong, right)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Return a hint as `did_you_mean`, or what there is if nothing is near."""
    candidates = sorted(set(right))
    if hint := did_you_mean(wrong, candidates):
        return hint
    listed = ", ".join(candidates[:_MOST_LISTED])
    more = f" and {len(candidates) - _MOST_LISTED} more" if len(candidates) > _MOST_LISTED else ""
    return f"; there is {listed}{more}" if candidates else ""


def field_names(root: type, values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all fields that can be given.

    Args:
        root: a settings class.
        values: plain values of it; where there is a choice of classes, the one of the ``kind`` in them is meant,
            and all of them if the kind is unknown.
        prefix: what stands before each name.
    """
    names: list[str] = []
    hints = get_type_hints(root, include_extras=True)
    for field in dataclasses.fields(root):
        names.append(prefix + field.name)
        inner = values.get(field.name)
        known = inner if isinstance(inner, dict) else {}
        for member in _chosen(hints[field.name], known):
            names.extend(field_names(member, known, f"{prefix}{field.name}."))
    return list(dict.fromkeys(names))


def field_types(root: type, path: Sequence[str], values: dict[str, Any]) -> set[type]:
    """Return the plain types that a field may hold, without None; empty where that cannot be told."""
    first, *rest = path
    hint = get_type_hints(root, include_extras=True).get(first)
    if hint is None:
        return set()
    if not rest:
        return _plain_types(hint)
    inner = values.get(first)
    known = inner if isinstance(inner, dict) else {}
    return set().union(*(field_types(cls, rest, known) for cls in _chosen(hint, known)))


def _chosen(annotation: Any, values: dict[str, Any]) -> list[type]:
    """Return the settings classes that an annotation admits; the one of the values' ``kind`` if it is known."""
    classes, kind = _members(annotation), values.get("kind")
    for part in get_args(annotation) if isinstance(kind, str) else ():
        if isinstance(part, OpenChoice) and (joined := part.joined_by(str(kind))) is not None:
            return [joined]
    return [cls for cls in classes if getattr(cls, "kind", None) == values.get("kind", "")] or classes


def _plain_types(annotation: Any) -> set[type]:
    if get_origin(annotation) is Annotated:
        plain, *checks = get_args(annotation)
        # What is taken before it is checked may be anything.
        return set() if any(isinstance(check, BeforeValidator) for check in checks) else _plain_types(plain)
    if get_origin(annotation) is Literal:
        return {type(choice) for choice in get_args(annotation)}
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return set().union(*(_plain_types(part) for part in get_args(annotation))) - {type(None)}
    return {annotation} if isinstance(annotation, type) else {tuple}


def settings_classes(root: type) -> list[type]:
    """Return a settings class and all those that its fields may hold."""
    hints = get_type_hints(root, include_extras=True)
    inner = [member for field in dataclasses.fields(root) for member in _members(hints[field.name])]
    return [root, *(found for member in inner for found in settings_classes(member))]


def suggest_field(wrong: str, known: Sequence[str]) -> str:
    """Return a hint for a dotted field name that does not exist, looking for its last part at every depth."""
    parent, _, last = wrong.rpartition(".")
    leaves = [name for name in known if not any(other.startswith(f"{name}.") for other in known)]
    elsewhere = [name for name in leaves if name.rpartition(".")[2] == last and name != wrong]
    # Short for the words of a name, such as lr for learning_rate.
    initials = [name for name in leaves if "".join(w[:1] for w in name.rpartition(".")[2].split("_")) == last]
    close = near_names(wrong, (name for name in leaves if name != wrong), likeness=0.75)
    found = [*elsewhere, *initials, *close]
    if found:
        return f"; did you mean {found[0]!r}?"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    return nearest(last, (name.rpartition(".")[2] for name in siblings))


def _members(annotation: Any, *, of_lists: bool = False) -> list[type]:
    """Return the settings classes that an annotation admits, on request those inside of lists."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0], of_lists=of_lists)
    if get_origin(annotation) is tuple and of_lists:
        return [member for part in get_args(annotation) if part is not Ellipsis for member in _members(part)]
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return [annotation]
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [member for part in get_args(annotation) for member in _members(part)]
    return []


def _field_path(root: type, location: Sequence[int | str]) -> tuple[str, list[str], list[str]]:
    """Return the dotted name of an error's place without pydantic's union tags, names known there, and its kinds."""
    names: list[str] = []
    classes = parents = [root]
    for part in location:
        fields = {field.name for cls in classes for field in dataclasses.fields(cls)}
        tags = {str(getattr(cls, "kind", "")): cls for cls in classes}
        if str(part) in tags and str(part) not in fields:
            classes = [tags[str(part)]]
            continue
        if "[" in str(part):  # pydantic's name for a member of a union without tags
            continue
        names.append(str(part))
        if isinstance(part, int):
            continue
        parents = classes
        hints = [get_type_hints(cls, include_extras=True).get(part) for cls in classes]
        classes = [member for hint in hints if hint is not None for member in _members(hint, of_lists=True)]
    siblings = sorted({field.name for cls in parents for field in dataclasses.fields(cls)})
    return ".".join(names), siblings, [str(getattr(cls, "kind", "")) for cls in classes]


def describe_problems(error: ValidationError, root: type, known: Sequence[str], prefix: str = "") -> list[str]:
    """Return one line for each mistake that pydantic found.

    Args:
        error: what pydantic raised while it checked the values of ``root``.
        root: the settings class that was checked, ``Recipe`` or ``Plan``.
        known: dotted names of all fields, for suggestions.
        prefix: what users write before a field of this class, such as ``plan.``.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for problem in error.errors():
        location, siblings, kinds = _field_path(root, problem["loc"])
        name = prefix + location
        if name in seen:  # a union without tags reports a mistake once for each of its members
            continue
        seen.add(name)
        found = problem.get("input")
        context = problem.get("ctx", {})
        if problem["type"] == "unexpected_keyword_argument":
            in_list = any(isinstance(part, int) for part in problem["loc"])
            last = location.rpartition(".")[2]
            hint = nearest(last, siblings) if in_list else suggest_field(name, list(known))
            lines.append(f"{name}: there is no such field{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{name}: is missing, and has no default")
        elif problem["type"] == "union_tag_invalid":
            tags = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
            lines.append(f"{name}.kind: found {_shown(context['tag'])}{nearest(str(context['tag']), tags)}")
        elif problem["type"] == "union_tag_not_found":
            lines.append(f"{name}.kind: is missing, and decides which fields there are; give one of {', '.join(kinds)}")
        elif problem["type"] == "literal_error" and isinstance(found, str):
            choices = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            lines.append(f"{name}: found {_shown(found)}, expected {context['expected']}{did_you_mean(found, choices)}")
        elif problem["type"] == "value_error":
            lines.append(f"{name}: {_in_full(str(context['error']), name, known)}" if name else str(context["error"]))
        else:
            lines.append(f"{name}: found {_shown(found)}; {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return lines


def _in_full(text: str, name: str, known: Sequence[str]) -> str:
    """Return what a settings class says of its own fields with each ``field=`` as it is written on a command line."""
    return _ASSIGNED.sub(lambda found: full if (full := f"{name}.{found[0]}") in known else found[0], text)


def _shown(value: Any) -> str:
    """Return a value as Python writes it, cut where it would fill the screen."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, lists in lists without end
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"
