"""Reads lines from a terminal: with prompt_toolkit, or as Python's ``input`` does without it."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .completer import Completer
from .history import History

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Coroutine
    from typing import Any

    from prompt_toolkit import PromptSession

#: Asks for a line with a prompt. EOFError at the end, KeyboardInterrupt for Ctrl-C.
Ask = Callable[[str], str]


def reader(completer: Completer, history: History) -> Ask:
    """What asks for lines."""
    try:
        return _prompt_session(completer, history).prompt
    except ImportError:
        return _plain(completer, history)


def _prompt_session(completer: Completer, history: History) -> "PromptSession[str]":
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.completion import Completer as ToolkitCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History as ToolkitHistory
    from prompt_toolkit.shortcuts import CompleteStyle

    class Adapter(ToolkitCompleter):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterable[Completion]:
            found = completer.complete(document.text_before_cursor)
            start = found.start - len(document.text_before_cursor)
            for text in found.texts:
                yield Completion(text, start_position=start)

    class Lines(ToolkitHistory):
        def load_history_strings(self) -> Iterable[str]:
            return reversed(history.lines)

        def store_string(self, string: str) -> None:
            history.add(string)

    session: PromptSession[str] = PromptSession(
        history=Lines(),
        completer=Adapter(),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        enable_history_search=True,
    )
    # "Display all 500 possibilities?" asks in a task of its own, which Ctrl-C would end with a
    # traceback.
    start = session.app.create_background_task

    def create(coroutine: "Coroutine[Any, Any, None]") -> "Task[None]":
        task = start(_until_interrupted(coroutine))
        # Each line ends with tasks that are cancelled before they start. Python warns of a
        # coroutine that was neither awaited nor closed.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    session.app.create_background_task = create  # type: ignore[method-assign]
    return session


async def _until_interrupted(work: "Coroutine[Any, Any, None]") -> None:
    with suppress(KeyboardInterrupt):
        await work


def _plain(completer: Completer, history: History) -> Ask:
    try:
        import readline
    except ImportError:
        return input
    found: Sequence[str] = ()

    def complete(_: str, state: int) -> str | None:
        nonlocal found
        if state == 0:
            before = readline.get_line_buffer()[: readline.get_endidx()]
            completion = completer.complete(before)
            skipped = readline.get_begidx() - completion.start
            found = [text[skipped:] for text in completion.texts]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    readline.set_auto_history(False)
    for line in history.lines:
        readline.add_history(line)

    def ask(prompt: str) -> str:
        line = input(prompt)
        sys.stdout.flush()
        history.add(line)
        if line.strip():
            readline.add_history(line)
        return line

    return ask
