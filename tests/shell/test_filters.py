"""The filters, compared with the programs of the same name where those are installed."""

import io
import shutil
import subprocess
from contextlib import suppress

import pytest

from xenkdump_fast.commands.contract import UsageError
from xenkdump_fast.shell import filters
from xenkdump_fast.shell.filters import FinishedError
from xenkdump_fast.shell.parser import HelpError

TEXT = "one\ntwo\nthree  10 x\nTwo\n\nfour 9 y\ntwo\ntwo\none two three\nfive\nsix\nseven\n" * 2


def filtered(words: list[str], text: str, piece: int = 7) -> str:
    stream = io.StringIO()
    made = filters.make(words, stream)
    with suppress(FinishedError):
        for start in range(0, len(text), piece):
            made.write(text[start : start + piece])
    made.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    "command",
    [
        "grep two",
        "grep -i two",
        "grep -v two",
        "grep -c two",
        "grep -n two",
        "grep -o t.o",
        "grep -w two",
        "grep -F t.o",
        "grep -E t.o|six",
        "grep -A1 six",
        "grep -B2 six",
        "grep -C1 -n six",
        "grep -C1 two",
        "grep -m2 two",
        "grep -c -m2 two",
        "grep -vn -A1 t",
        "egrep one|six",
        "fgrep t.o",
        "head",
        "head -n 3",
        "head -3",
        "head -n 0",
        "head -n 100",
        "tail",
        "tail -n 2",
        "tail -2",
        "tail -n 0",
        "wc -l",
        "wc -w",
        "wc -c",
        "sort",
        "sort -r",
        "sort -u",
        "uniq",
        "uniq -c",
    ],
)
@pytest.mark.parametrize("text", [TEXT, "", "two\n", "\n\n"])
def test_as_the_programs(command: str, text: str) -> None:
    words = command.split()
    name = {"egrep": "grep -E", "fgrep": "grep -F"}.get(words[0], words[0])
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]}")
    done = subprocess.run(
        [*name.split(), *words[1:]],
        input=text,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert filtered(words, text) == done.stdout
    assert filtered(words, text, 1000) == done.stdout


def test_large_numbers() -> None:
    assert filtered(["tail", "-n", "18446744073709551615"], "a\nb\n") == "a\nb\n"
    assert filtered(["grep", "-C", "18446744073709551615", "b"], "a\nb\n") == "a\nb\n"


def test_a_pattern_that_python_warns_of() -> None:
    assert filtered(["grep", "[[a]"], "[\nb\n") == "[\n"


def test_sort_by_a_number() -> None:
    text = "a 10\nb 9\nc x\nd -1.5\ne\n"
    assert filtered(["sort", "-n", "-k", "2"], text) == "d -1.5\nc x\ne\nb 9\na 10\n"
    assert filtered(["sort", "-n"], "10\n9\n") == "9\n10\n"


def test_wc_of_everything() -> None:
    assert filtered(["wc"], "a b\nä\n").split() == ["2", "3", "7"]


def test_a_last_line_without_its_end() -> None:
    assert filtered(["grep", "b"], "a\nb") == "b\n"


def test_the_command_ends_early() -> None:
    stream = io.StringIO()
    made = filters.make(["head", "-1"], stream)
    with pytest.raises(FinishedError):
        made.write("a\nb\nc\n")
    made.close()
    assert stream.getvalue() == "a\n"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("grep", "required: PATTERN"),
        ("grep [", "unterminated character set"),
        ("grep a b", "unrecognized arguments: b"),
        ("grep a{99999999999}", "too large"),
        (f"grep {'(' * 5000}", "grep: "),
        ("head -n x", "'x' is not a number of lines"),
        ("head -n -1", "expected one argument"),
        ("wc -z", "unrecognized arguments: -z"),
    ],
)
def test_wrong_usage(command: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        filters.make(command.split(), io.StringIO())
    assert problem in str(raised.value)


@pytest.mark.parametrize("name", filters.NAMES)
def test_help(name: str) -> None:
    with pytest.raises(HelpError) as raised:
        filters.make([name, "--help"], io.StringIO())
    assert str(raised.value).startswith(f"usage: {name}")


def test_bytes() -> None:
    with pytest.raises(UsageError, match="bytes"):
        _ = filters.make(["head"], io.StringIO()).buffer
