"""Runs ``xkdump`` and notes the CPU time at each import and at each step of the command.

``python benches/checkpoints.py FILE STEPS COMMAND...`` is started by ``profile_bt``. STEPS has a
line for each step: module, function or cached property in it, and label, separated by tabs. FILE
gets a line for each checkpoint: monotonic clock, CPU time of the process in nanoseconds, and the
label of what runs from there on. Nothing is imported here that the command would not import itself.
"""

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

#: The clocks at the first line of Python of the command, as far as possible.
FIRST = (time.monotonic_ns(), time.process_time_ns())
# The directory of this file would hide modules of the standard library.
del sys.path[0]

#: Monotonic clock, CPU time, label.
points = [(*FIRST, "other")]
running = ["other"]


def enter(label: str) -> None:
    """From here on, something else runs."""
    running.append(label)
    points.append((time.monotonic_ns(), time.process_time_ns(), label))


def leave() -> None:
    """From here on, the caller runs again."""
    running.pop()
    points.append((time.monotonic_ns(), time.process_time_ns(), running[-1]))


def noted(function: "Callable[..., Any]", label: str) -> "Callable[..., Any]":
    """The function, with checkpoints."""

    def call(*arguments: "Any", **options: "Any") -> "Any":
        enter(label)
        try:
            return function(*arguments, **options)
        finally:
            leave()

    return call


def note(module: "ModuleType", path: str, label: str) -> bool:
    """Adds checkpoints to a step; False if there is no such function."""
    *classes, name = path.split(".")
    owner: Any = module
    for one in classes:
        owner = vars(owner).get(one)
        if owner is None:
            return False
    found = vars(owner).get(name)
    if found is None:
        return False
    if hasattr(found, "func"):  # a cached property
        found.func = noted(found.func, label)
    else:
        setattr(owner, name, noted(found, label))
    return True


def main() -> None:
    """Runs the command, whose end writes the checkpoints."""
    import os  # which the interpreter has imported for itself

    target, steps, *words = sys.argv[1:]
    wanted: dict[str, list[tuple[str, str]]] = {}
    for line in steps.split("\n"):
        module, path, label = line.split("\t")
        wanted.setdefault(module, []).append((path, label))
    importer: Any = sys.modules["_frozen_importlib"]
    find_and_load = importer._find_and_load
    missing: list[str] = []

    def load(name: str, import_: "Any") -> "Any":
        enter("import " + name)
        try:
            module = find_and_load(name, import_)
        finally:
            leave()
        for path, label in wanted.pop(name, ()):
            if not note(module, path, label):
                missing.append(label)
        return module

    # Called for modules that are not imported yet.
    importer._find_and_load = load
    exit_now = os._exit

    def end(status: "Any") -> "Any":
        points.append((time.monotonic_ns(), time.process_time_ns(), "exit"))
        missing.extend(label for left in wanted.values() for _, label in left)
        lines = [f"{at}\t{cpu}\t{label}" for at, cpu, label in points]
        with open(target, "w") as file:
            file.write("\n".join([*("missing\t" + label for label in missing), *lines]))
        exit_now(status)

    os._exit = end
    sys.argv = ["xkdump", *words]
    try:
        from xenkdump_fast.process import run

        run()
    except SystemExit as error:
        end(error.code or 0)


if __name__ == "__main__":
    main()
