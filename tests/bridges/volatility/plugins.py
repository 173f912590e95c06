"""Runs a plugin of volatility3 on a domain in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xenkdump_fast import Domain
from xenkdump_fast.bridges.volatility import files, runner

Row = dict[str, Any]


@contextmanager
def prepared(domain: Domain, folder: Path) -> Iterator[dict[str, object]]:
    """The configuration of volatility3 for a domain; its memory is known within the block."""
    runner.prepare(str(folder))
    from xenkdump_fast.bridges.volatility.layer import DomainLayer

    bare = domain.as_bare()
    symbols = files.symbol_file(domain.kernel, folder)
    runner.accept(symbols)
    key = f"{domain.dump.path}:{domain.id}"
    DomainLayer.register(key, bare.memory, bare.runs())
    yield runner.configuration(bare, key, symbols)
    DomainLayer.forget(key)


def rows(config: dict[str, object], name: str) -> list[Row]:
    """What a plugin finds."""
    import volatility3.plugins
    from volatility3 import framework
    from volatility3.cli import MuteProgress
    from volatility3.framework import automagic, contexts, interfaces, plugins

    framework.import_files(volatility3.plugins, True)
    plugin = framework.list_plugins()[name]
    context = contexts.Context()
    path = interfaces.configuration.path_join("plugins", plugin.__name__)
    context.config.splice(path, interfaces.configuration.HierarchicalDict(config))
    magic = automagic.choose_automagic(automagic.available(context), plugin)
    made = plugins.construct_plugin(
        context, magic, plugin, "plugins", MuteProgress(), interfaces.plugins.FileHandlerInterface
    )
    grid, found = made.run(), []
    columns = [column.name for column in grid.columns]

    def visit(node: Any, _: None) -> None:
        found.append(dict(zip(columns, node.values, strict=True)))

    grid.populate(visit, None)
    return found
