"""Are classes of one's own found by path and name, and is whatever is wrong with them said in one line?"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from engine.errors import RecipeError
from engine.recipes.own_files import check_unchanged, is_own, own_class, own_files, with_absolute_path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    value = 1\n\n\nclass Other:\n    pass\n\n\nnumber = 3\n")
    return path


def test_a_class_is_found_and_stays_itself_until_its_file_changes(file: Path) -> None:
    found = own_class(f"{file}:Mine", "task.kind")
    assert found.__name__ == "Mine"
    assert own_class(f"{file}:Mine", "task.kind") is found
    file.write_text("class Mine:\n    value = 2\n")
    changed = own_class(f"{file}:Mine", "task.kind")
    assert changed is not found
    assert vars(changed)["value"] == 2


def test_what_runs_is_what_the_file_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own cache of compiled code tells files of one second and size apart by neither."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for value in (1, 2, 3):
        file.write_text(f"class Mine:\n    value = {value}\n")
        assert vars(own_class(f"{file}:Mine", "task.kind"))["value"] == value


def test_a_relative_path_starts_at_the_current_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert with_absolute_path("mine.py:Mine", "task.kind") == f"{file}:Mine"
    assert own_class("mine.py:Mine", "task.kind") is own_class(f"{file}:Mine", "task.kind")


def test_what_names_no_file_stays_as_it_is() -> None:
    assert [is_own(name) for name in ("classification", "a.py:B", "a.py", "a:B")] == [False, True, True, False]
    assert with_absolute_path("classification", "task.kind") == "classification"


def test_files_are_found_wherever_a_recipe_names_them(file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    own = f"{file}:Mine"
    peers = [{"backbone": {"name": own}}, {"backbone": {"name": "resnet32"}}]
    for values in ({"task": {"kind": own}}, {"method": {"kind": own, "peers": peers}}, {"method": {"peers": peers}}):
        assert own_files({"name": "x.py", "epochs": 3, **values}) == {str(file): digest}
    assert own_files({"task": {"kind": f"{tmp_path}/gone.py:Mine"}, "data": {"root": str(tmp_path)}}) == {}


def test_a_team_is_made_of_one_version_of_a_file(file: Path) -> None:
    values = {"method": {"kind": f"{file}:Mine"}}
    then = own_files(values)
    check_unchanged(then, values)
    content = file.read_bytes()
    file.write_text("class Mine:\n    value = 2\n")
    with pytest.raises(
        RecipeError, match=rf"^{file}: is another file on .*, bring it back as it was \(the same command"
    ):
        check_unchanged(then, values)
    file.write_bytes(content)
    check_unchanged(then, values)
    file.unlink()
    check_unchanged(then, values)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("class Mine: pass", "", "no class is named; expected path/to/file.py:Name"),
        ("class Mine: pass", ":Min", "defines no class 'Min'; did you mean 'Mine'?"),
        ("Mine = 3", ":Mine", "defines no class 'Mine'"),
        ("import missing_library", ":Mine", "cannot be imported: ModuleNotFoundError: No module named"),
        ("raise SystemExit('no')", ":Mine", "cannot be imported: SystemExit: no"),
        (None, ":Mine", "there is no file"),
    ],
)
def test_what_is_wrong_is_said_with_the_field(tmp_path: Path, content: str | None, name: str, message: str) -> None:
    path = tmp_path / "own.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError) as caught:
        own_class(f"{path}{name}", "task.kind")
    assert str(caught.value).startswith(f"task.kind={path}{name}: ")
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(RecipeError, match="is no regular file"):
        own_class(f"{tmp_path}/folder.py:Mine", "task.kind")
