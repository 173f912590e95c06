"""The state of a shell: its session, and what ``set`` and ``alias`` change."""

from collections.abc import Sequence

from ..commands import COMMANDS, Command
from ..limits import MAX_ALIASES
from .session import Session

#: Those that a shell starts with: crash's other names of commands.
_ALIASES = {"dmesg": ["log"], "man": ["help"], "?": ["help"], "q": ["exit"], "quit": ["exit"]}


class State:
    """The state of a shell."""

    def __init__(self, session: Session, *, escapes: bool = False, scroll: bool = False) -> None:
        self.session = session
        #: Whether lines may start other programs.
        self.escapes = escapes
        #: Whether long output is shown by pages.
        self.scroll = scroll
        #: The words that a name stands for.
        self.aliases: dict[str, list[str]] = dict(_ALIASES)

    def expanded(self, words: Sequence[str]) -> Sequence[str]:
        """The words of a command without aliases."""
        for _ in range(MAX_ALIASES):
            alias = self.aliases.get(words[0])
            if alias is None:
                break
            is_own = alias[0] == words[0]  # alias bt 'bt -a'
            words = [*alias, *words[1:]]
            if is_own:
                break
        return words


def available() -> dict[str, Command]:
    """The commands that run on an open dump and print a document."""
    return {
        name: command
        for name, command in COMMANDS.items()
        if command.target != "none" and not command.interactive
    }
