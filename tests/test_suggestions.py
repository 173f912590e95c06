"""Names that are similar to a mistyped one."""

import pickle
from collections.abc import Iterator

import pytest

from xenkdump_fast import AbsentError, limits, suggestions
from xenkdump_fast.suggestions import UnknownNameError, close


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("scheduel", ["schedule"]),
        ("SCHEDULE", ["schedule"]),
        ("shcedule", ["schedule"]),
        ("xyzzy", []),
        ("s", []),
        ("", []),
    ],
)
def test_similar_names(word: str, expected: list[str]) -> None:
    assert close(word, ["schedule", "panic", "", "s", "sched_fork_and_more"]) == expected


def test_names_are_compared_only_for_a_message() -> None:
    def names() -> Iterator[str]:
        yield "task_struct"
        raise AssertionError

    error = UnknownNameError("no type", "task_strct", names)
    with pytest.raises(AbsentError):
        raise error
    with pytest.raises(AssertionError):
        str(error)


def test_names_that_cannot_be_read() -> None:
    def names() -> Iterator[str]:
        raise AbsentError("damaged")
        yield ""

    assert str(UnknownNameError("no type", "task_strct", names)) == "no type"


def test_the_message_is_pickled() -> None:
    error = UnknownNameError("no type", "task_strct", lambda: ["task_struct"])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "no type; did you mean task_struct?"


def test_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile dump may have any number of names."""
    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"task_{taken:06}"

    monkeypatch.setattr(suggestions, "MAX_SUGGESTION_NAMES", 10_000)
    close("task_000001", names())
    assert taken == 10_000
    monkeypatch.setattr(suggestions, "MAX_SUGGESTIONS_COMPARED", 2)
    assert set(close("task_000003", names())) == {"task_010001", "task_010002"}


def test_long_names_are_not_compared() -> None:
    longest = "s" * limits.MAX_SUGGESTION_NAME
    assert close(longest, [longest[1:]]) == [longest[1:]]
    assert close(f"{longest}s", [longest]) == []
