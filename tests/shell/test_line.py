"""The grammar of a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenkdump_fast.commands.contract import UsageError
from xenkdump_fast.shell.line import Mode, Pipeline, Redirection, parse, tokens


@pytest.mark.parametrize(
    ("line", "stages"),
    [
        ("", []),
        ("  # a comment", []),
        (";;", []),
        ("bt", [[["bt"]]]),
        ("bt -a; ps", [[["bt", "-a"]], [["ps"]]]),
        ("bt|grep a b", [[["bt"], ["grep", "a", "b"]]]),
        ("grep 'a|b;c>d' \"#\"", [[["grep", "a|b;c>d", "#"]]]),
        (r"grep a\|b \\ 'a\b' \"", [[["grep", "a|b", "\\", r"a\b", '"']]]),
        (r'grep "\." "a\"b" "\\"', [[["grep", r"\.", 'a"b', "\\"]]]),
        ("p task->mm 'x'y\"z\" ''", [[["p", "task->mm", "xyz", ""]]]),
        ("bt a#b # c", [[["bt", "a#b"]]]),
    ],
)
def test_words(line: str, stages: list[list[list[str]]]) -> None:
    assert [pipeline.stages for pipeline in parse(line)] == stages


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("bt > f", Redirection("f", Mode.NEW)),
        ("bt>f", Redirection("f", Mode.NEW)),
        ("bt >!f", Redirection("f", Mode.REPLACE)),
        ("bt >! 'a b'", Redirection("a b", Mode.REPLACE)),
        ("bt | head >>f", Redirection("f", Mode.APPEND)),
    ],
)
def test_redirections(line: str, file: Redirection) -> None:
    (found,) = parse(line)
    assert found.redirection == file


def test_escapes() -> None:
    assert parse(" ! ls; echo 'a' | b") == [Pipeline([], escape="ls; echo 'a' | b")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("grep 'a", "within quotes"),
        ('bt "', "within quotes"),
        ("bt \\", "after a backslash"),
        ("bt |", "no command after a |"),
        ("| grep a", "no command before a |"),
        ("bt | | head", "no command before a |"),
        ("bt >", "no file after >"),
        ("bt > ''", "no file after >"),
        ("bt > | a", "no file after >"),
        ("bt > a b", "'b' after the file"),
        ("bt > a | head", "'|' after the file"),
        ("> a", "no command before a >"),
        ("bt > a\0b", "has a NUL"),
        ("export -o a\0b", "has a NUL"),
    ],
)
def test_what_is_no_line(line: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(line)
    assert problem in str(raised.value)


@given(st.text(alphabet="ab \t'\"\\|;>!#-", max_size=12))
def test_any_line(line: str) -> None:
    starts = [token.start for token in tokens(line)]
    assert starts == sorted(set(starts))
    try:
        found = parse(line)
    except UsageError:
        return
    for pipeline in found:
        assert pipeline.escape is not None or all(pipeline.stages)


@given(st.lists(st.text(alphabet="ab '\"\\|;>#", min_size=1), min_size=1))
def test_quoted_words(words: list[str]) -> None:
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    (found,) = parse(quoted)
    assert found.stages == [words]
