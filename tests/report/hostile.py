"""Text that tries to be markup or script, in every place of a content."""

from typing import Any

from xenkdump_fast.report.model import Content

TEXT = (
    '"><script>window.poisoned=1</script><img src=x onerror="window.poisoned=1">'
    "'`|[x](javascript:window.poisoned=1)\n# heading\n</pre>\x1b[31m\u202e\ud800{{7*7}}{% raw %}"
)
#: Members that this program writes: the dump has no influence on them.
OWN = {"kind", "who", "source", "label", "letters"}


def poisoned(content: Content) -> Content:
    """The content with this text behind every text from the dump."""
    found: Content = _everywhere(content, "")
    return found


def _everywhere(part: Any, key: str) -> Any:
    if isinstance(part, dict):
        return {name: _everywhere(value, name) for name, value in part.items()}
    if isinstance(part, list):
        return [_everywhere(value, key) for value in part]
    if isinstance(part, str) and key not in OWN and not part.startswith("0x"):
        return part + TEXT
    return part
