"""What is missing is said once."""

from xenkdump_fast.cli.folding import FEW, fold


def test_warnings_of_a_kind_are_counted() -> None:
    many = [f"the task at {i:#x} cannot be read: it lies at {i * 7}" for i in range(1000)]
    told = fold(["the file is cut", *many, "the file is cut"])
    assert told[0] == "the file is cut"
    assert told[1 : 1 + FEW] == many[:FEW]
    assert told[1 + FEW :] == [f"and {1000 - FEW} more like this: {many[FEW]}"]


def test_the_reason_does_not_make_a_kind() -> None:
    told = fold([f"the task at {i:#x} cannot be read: reason {'x' * i}" for i in range(9)])
    assert len(told) == FEW + 1


def test_few_are_told_as_they_are() -> None:
    assert fold(["b 1", "a", "b 2"]) == ["b 1", "b 2", "a"]
    assert fold([]) == []
