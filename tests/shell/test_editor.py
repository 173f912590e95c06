"""The editor of lines with prompt_toolkit."""

import asyncio
import gc
import warnings

import pytest

from xenkdump_fast.shell import editor
from xenkdump_fast.shell.history import History

pytest.importorskip("prompt_toolkit", reason="pip install prompt_toolkit")


def test_ctrl_c_at_a_question_ends_only_the_question() -> None:
    """As prompt_toolkit asks whether to display all possibilities: in a background task."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import DummyInput
    from prompt_toolkit.output import DummyOutput

    asked = []

    async def question() -> None:
        asked.append(True)
        raise KeyboardInterrupt

    async def other() -> None:
        raise ValueError("no")

    async def work() -> None:
        with create_app_session(input=DummyInput(), output=DummyOutput()):
            session = editor._prompt_session(None, History(None))  # type: ignore[arg-type]
            await session.app.create_background_task(question())
            with pytest.raises(ValueError, match="no"):
                await session.app.create_background_task(other())

    asyncio.run(work())
    assert asked


def test_a_task_that_is_cancelled_before_it_starts_leaves_no_warning() -> None:
    """As at the end of each line."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import DummyInput
    from prompt_toolkit.output import DummyOutput

    async def timeout() -> None:
        raise AssertionError("started")

    async def work() -> None:
        with create_app_session(input=DummyInput(), output=DummyOutput()):
            session = editor._prompt_session(None, History(None))  # type: ignore[arg-type]
            task = session.app.create_background_task(timeout())
            await session.app.cancel_and_wait_for_background_tasks()
            assert task.cancelled()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(work())
        gc.collect()
    assert not caught, [str(warning.message) for warning in caught]
