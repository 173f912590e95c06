"""The kernel and its modules as modules of drgn: where they are, and their debug files."""

import os

from drgn import (
    DebugInfoOptions,
    FaultError,
    KmodSearchMethod,
    Module,
    ModuleFileStatus,
    Object,
    Program,
)

from ..._native import AbsentError
from ...isolation import isolated
from ...linux import modules
from ...linux.kernel import Kernel
from ...regular_files import open_regular
from ...session import debug_files

_ELF = b"\x7fELF"


def add_kernel(program: Program, kernel: Kernel) -> bool:
    """Adds the kernel; returns whether drgn has DWARF of it.

    drgn takes ORC from memory if the file has none.
    """
    made = program.main_module("kernel", create=True)
    start, end = kernel.symbols.get("_stext"), kernel.symbols.get("_end")
    if start is None or end is None or start >= end:
        kernel.warn("drgn: no symbols _stext and _end: its stack traces are incomplete")
        return False
    made.address_range = (start, end)
    identity = kernel.image.build_id
    if not kernel.image.is_memory and _is_elf(kernel.image.path):
        # Its build was compared with that of the kernel in memory.
        made.try_file(kernel.image.path, force=True)
    identity = kernel.image.build_id
    if identity is not None and not has_debug_file(made):
        made.build_id = bytes.fromhex(identity)
        for path in debug_files.paths(identity, kernel.release):
            if made.debug_file_status == ModuleFileStatus.WANT and _is_elf(path):
                made.try_file(path)
        program.find_standard_debug_info([made], _options(kernel.release))
    return has_debug_file(made)


def has_debug_file(module: Module) -> bool:
    """Whether drgn has a file with the DWARF of a module."""
    return bool(module.debug_file_status == ModuleFileStatus.HAVE)


def _is_elf(path: str) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False


def add_loadable(program: Program, kernel: Kernel) -> list[Module]:
    """Adds the loaded modules, and returns them.

    The list is walked here, because a damaged one has no end for drgn.
    """
    try:
        program.type("struct module")
    except LookupError:
        return []
    found: list[Module] = []
    for module in modules.modules(kernel):
        with isolated(f"drgn cannot read module {module.name}", kernel.warn):
            try:
                made = _loadable(program, kernel, module)
            except MemoryError:
                raise
            except Exception as error:  # those of drgn have no common class
                raise AbsentError(str(error)) from None
            found.append(made)
    if found:
        program.find_standard_debug_info(found, _options(kernel.release))
    return found


def _options(release: str) -> DebugInfoOptions:
    """Where drgn looks for debug files, by their build ids and by the release."""
    by_release = KmodSearchMethod.DEPMOD_OR_WALK
    if os.sep in release or release in ("", ".", ".."):
        by_release = KmodSearchMethod.NONE
    folders = [*debug_files.folders(), "/usr/lib/debug"]
    return DebugInfoOptions(directories=folders, try_kmod=by_release)


def _loadable(program: Program, kernel: Kernel, module: modules.Module) -> Module:
    """One loaded module, by drgn's own reading or, where members are missing for that, by ours."""
    found = Object(program, "struct module *", module.address)
    try:
        return program.linux_kernel_loadable_module(found, create=True)
    except (FaultError, LookupError, TypeError, ValueError):
        # A kernel without sysfs, of which drgn reads the build id and addresses of sections.
        made = program.relocatable_module(module.name, module.base, create=True)
    made.address_ranges = [(base, kernel.end(base, size)) for base, size in module.texts]
    made.object = found
    if found.type_.type.has_member("arch") and found.arch.type_.has_member("orc_unwind"):
        made.section_addresses[".orc_unwind"] = found.arch.orc_unwind.value_()
        made.section_addresses[".orc_unwind_ip"] = found.arch.orc_unwind_ip.value_()
    return made
