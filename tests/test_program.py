"""Is a program checked, sized and shown as its calls say?"""

from __future__ import annotations

import dataclasses
import re

import pytest

from engine.phases import PHASES
from engine.program import BATCH, SOURCE, Call, Message, Program, ProgramError, batch_message

FEATURES = Message("features", (((4, 16, 8, 8), "float32"),))
TAKEN = Message(BATCH, (((4, 3, 8, 8), "uint8"), ((4,), "int64"), ((4,), "int64")))
NEXT = Call(SOURCE, "next", (), (BATCH,))
FORWARD = Call("segment0", "forward", (BATCH,), ("features",))
UPDATE = Call("segment0", "update")
LAST = Call("segment1", "forward", (BATCH, "features"))


def program(*calls: Call) -> Program:
    given = {name for call in calls for name in call.gives}
    return Program(calls, {message.name: message for message in (FEATURES, TAKEN) if message.name in given}, "training")


def test_a_sound_program_passes() -> None:
    found = program(NEXT, FORWARD, UPDATE, LAST)
    assert found.calls == (NEXT, FORWARD, UPDATE, LAST)


def test_a_message_must_be_given_before_it_is_taken() -> None:
    with pytest.raises(ProgramError, match="'features' before any call gives it"):
        program(NEXT, LAST, FORWARD)


def test_a_message_must_be_given_at_all() -> None:
    with pytest.raises(ProgramError, match=r"segment1 forward.* takes 'features'"):
        program(NEXT, LAST)


def test_a_call_cannot_take_what_it_gives_itself() -> None:
    with pytest.raises(ProgramError, match="before any call gives it"):
        program(NEXT, Call("segment0", "forward", (BATCH, "features"), ("features",)))


def test_a_message_has_one_giver() -> None:
    with pytest.raises(ProgramError, match="an earlier call gave already"):
        program(NEXT, FORWARD, Call("segment1", "forward", (BATCH,), ("features",)))


def test_a_call_cannot_give_a_message_twice() -> None:
    with pytest.raises(ProgramError, match="an earlier call gave already"):
        program(NEXT, Call("segment0", "forward", (BATCH,), ("features", "features")))


def test_a_message_has_a_known_shape() -> None:
    with pytest.raises(ProgramError, match="whose shape is not stated"):
        Program((NEXT, FORWARD), {BATCH: TAKEN}, "training")


def test_no_message_is_stated_that_nobody_gives() -> None:
    with pytest.raises(ProgramError, match=r"no call gives: \['features'\]"):
        Program((NEXT,), {BATCH: TAKEN, "features": FEATURES}, "training")


def test_bytes_are_those_of_the_tensors() -> None:
    assert FEATURES.bytes == 4 * 16 * 8 * 8 * 4
    assert TAKEN.bytes == 4 * 3 * 8 * 8 + 4 * 8 + 4 * 8
    assert program(NEXT, FORWARD, LAST).bytes_per_step == FEATURES.bytes + TAKEN.bytes


@pytest.mark.parametrize(
    ("dtype", "size"), [("uint8", 1), ("int64", 8), ("float32", 4), ("bfloat16", 2), ("float16", 2)]
)
def test_bytes_of_every_dtype(dtype: str, size: int) -> None:
    assert Message("m", (((3, 5), dtype),)).bytes == 15 * size


def test_a_scalar_has_the_bytes_of_one_number() -> None:
    assert Message("m", (((), "float32"),)).bytes == 4


def test_the_batch_has_images_labels_and_indices() -> None:
    found = batch_message(128, (3, 32, 32))
    assert found.name == BATCH
    assert found.parts == (((128, 3, 32, 32), "uint8"), ((128,), "int64"), ((128,), "int64"))
    assert found.bytes == 128 * 3 * 32 * 32 + 2 * 128 * 8


def test_the_labels_of_a_batch_may_be_maps() -> None:
    found = batch_message(2, (3, 8, 9), (8, 9), "uint8")
    assert found.parts == (((2, 3, 8, 9), "uint8"), ((2, 8, 9), "uint8"), ((2,), "int64"))


def test_learners_are_in_the_order_of_their_first_calls() -> None:
    assert program(NEXT, FORWARD, LAST, UPDATE).learners == ("segment0", "segment1")
    assert program(NEXT).learners == ()


def test_the_last_taker_of_a_message() -> None:
    found = program(NEXT, FORWARD, UPDATE, LAST, Call("segment1", "update"))
    assert found.last_taker("features") == 3
    assert found.last_taker(BATCH) == 3
    assert program(NEXT, FORWARD).last_taker("features") is None


def test_calls_are_shown_with_what_they_take_and_give() -> None:
    assert str(NEXT) == "source next -> batch"
    assert str(UPDATE) == "segment0 update"
    assert str(Call("a", "forward", ("x", "y"), ("z", "w"))) == "a forward(x, y) -> z, w"


def test_a_program_is_shown_line_by_line_with_its_bytes() -> None:
    lines = program(NEXT, FORWARD, UPDATE, LAST).describe()
    assert len(lines) == 4
    assert lines[1].split("  ")[0] == "segment0 forward(batch) -> features"
    assert lines[1].endswith("features: 4x16x8x8 float32 = 16,384 bytes")
    assert lines[0].endswith("batch: 4x3x8x8 uint8, 4 int64, 4 int64 = 832 bytes")
    assert lines[2] == "segment0 update"
    assert lines[0].index("batch: ") == lines[1].index("features: ")


def test_an_empty_program_is_shown_as_nothing() -> None:
    assert program().describe() == []
    assert program().bytes_per_step == 0


def test_a_call_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        NEXT.phase = "other"  # type: ignore[misc]


def test_who_is_in_the_middle_of_a_step_when_another_is_called() -> None:
    chain = program(NEXT, FORWARD, UPDATE, LAST)
    assert chain.at_work() == (("segment0", frozenset()), ("segment0", frozenset()), ("segment1", frozenset()))
    takes = {"forward": (BATCH,), "update": ()}
    calls = [Call(name, phase, takes[phase]) for phase in takes for name in ("peer0", "peer1")]
    one, other = frozenset({"peer0"}), frozenset({"peer1"})
    assert program(NEXT, *calls).at_work() == (
        ("peer0", frozenset()),
        ("peer1", one),
        ("peer0", other),
        ("peer1", frozenset()),
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call("segment0", "forwards", (BATCH,)), "segment0 forwards(batch): unknown phase 'forwards'; expected one of"),
        (Call(SOURCE, "forward"), "source forward: unknown phase 'forward'; the source has 'next' alone"),
        (Call("segment0", "forward"), "segment0 forward does not take 'batch', which the phase 'forward' needs"),
        (Call("segment0", "update", (BATCH,)), "segment0 update(batch) takes 'batch', which the phase 'update' does"),
    ],
)
def test_a_call_keeps_to_the_table_of_phases(call: Call, words: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(words)):
        program(NEXT, call)


@pytest.mark.parametrize("phase", sorted(PHASES))
def test_every_phase_can_be_in_a_program(phase: str) -> None:
    call = Call("segment0", phase, (BATCH,) if PHASES[phase].takes_batch else ())
    assert program(NEXT, call).learners == ("segment0",)


def test_training_and_evaluation_have_programs_of_their_own() -> None:
    with pytest.raises(ProgramError, match=r"segment0 update is training, but segment0 infer\(batch\) is evaluation"):
        program(NEXT, UPDATE, Call("segment0", "infer", (BATCH,)))


def test_a_program_without_some_learners() -> None:
    messages = {name: Message(name, (((4, 2), "float32"),)) for name in ("batch", "one", "other")}
    program = Program(
        (
            Call("source", "next", (), ("batch",)),
            Call("a", "forward", ("batch",), ("one",)),
            Call("b", "forward", ("batch",), ("other",)),
            Call("a", "update", ("other",)),
            Call("b", "update", ("one",)),
        ),
        messages,
        "training",
    )
    assert [str(call) for call in program.without({"b"}).calls] == [
        "source next -> batch",
        "a forward(batch) -> one",
        "a update",
    ]
    assert set(program.without({"b"}).messages) == {"batch", "one"}
    assert program.without(set()) == program
