"""Messages use plain words; the phrases here were misread."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *ROOT.glob("python/xenkdump_fast/**/*.py"),
    *ROOT.glob("rust/*/src/**/*.rs"),
]
#: Each phrase, and what to write instead.
PHRASES = {
    r"can(?:not|'t) be told": "unknown, or: cannot be determined",
    r"nothing to go by": "no evidence",
}


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_message_has_the_phrase(phrase: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if re.search(phrase, line)
    ]
    assert found == [], f"write: {PHRASES[phrase]}"
