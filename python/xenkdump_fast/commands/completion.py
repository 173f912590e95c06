"""``completion``: the script that completes the arguments of ``xkdump`` in a shell."""

from collections.abc import Iterator
from importlib import resources

from .._typing import NamedTuple, TypedDict
from .contract import Operands

#: Shells for which there is a script; ``python -m tools.command_line`` writes them.
SHELLS = ("bash", "zsh")
OPERANDS = Operands("SHELL", f"the shell: {' or '.join(SHELLS)}", "1", SHELLS)


class Options(NamedTuple):
    """The shell."""

    operands: tuple[str]


def run(target: None, options: Options) -> "Script":
    """Reads the script from the package."""
    (shell,) = options.operands
    file = resources.files(__package__.partition(".")[0]) / "completion" / f"xkdump.{shell}"
    return Script(shell, file.read_text())


class JSON(TypedDict):
    """What ``completion --json`` prints."""

    shell: str
    script: str


class Script(NamedTuple):
    """A completion script."""

    shell: str
    script: str

    def text(self) -> Iterator[str]:
        """The script, by line."""
        return iter(self.script.splitlines())

    def json(self) -> JSON:
        """The shell and the script."""
        return {"shell": self.shell, "script": self.script}
