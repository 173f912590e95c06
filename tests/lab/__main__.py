"""Makes dumps of Xen hosts: ``python -m tests.lab FOLDER [SCENARIO...]``.

docs/lab.md describes what is made and what it needs.
"""

import argparse
import gzip
import json
import tarfile
from pathlib import Path

from . import spin, truth
from .initramfs import Archive
from .machine import Machine
from .packages import Release
from .scenarios import CRASHED, SCENARIOS, Scenario

HERE = Path(__file__).parent
#: Modules of dom0: Xen's devices, and the disk.
_MODULES = (
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "ata_piix",
    "sd_mod",
)
#: docs/lab.md has the reasons.
_CPU = "EPYC,+svm,+npt,-monitor,-smap,-rdtscp"
_TOOLS = ("xl", "xenstored", "xenconsoled", "xenstore-control")
_HELPERS = ("xen-init-dom0", "libxl-save-helper")
#: The package with the device model of HVM guests, and the files that it reads.
_DEVICE_MODEL = "qemu-system-xen"
_FIRMWARE = (
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/keymaps/en-us",
)
_DISK = 1 << 30
#: What Xen prints before all CPUs halt.
_HALTED = "'noreboot' set - not rebooting"
#: Seconds for the boot of dom0 and of all guests.
_PATIENCE = 1500


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.lab", description=__doc__)
    parser.add_argument("folder", type=Path, help="where packages and dumps are kept")
    # Without any, argparse looks for the empty list among the choices (Python up to 3.13).
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    options = parser.parse_args()
    for name in options.scenarios or SCENARIOS:
        make(options.folder.resolve(), SCENARIOS[name])


def make(folder: Path, scenario: Scenario) -> None:
    """Runs one scenario; its dumps are in ``FOLDER/dumps/NAME``."""
    out = folder / "dumps" / scenario.name
    out.mkdir(parents=True, exist_ok=True)
    work = folder / "work" / scenario.name
    work.mkdir(parents=True, exist_ok=True)
    root = _root(folder, scenario.release)
    boot = root / "boot"
    (work / "xen").write_bytes(gzip.decompress(_only(boot, "xen-*-amd64.gz").read_bytes()))
    kernel = _only(boot, "vmlinuz-*")
    (work / "initramfs").write_bytes(_dom0(folder, root, scenario))
    disk = work / "disk"
    with disk.open("wb") as file:
        file.truncate(_DISK)
    arguments = [
        *scenario.qemu,
        *("-cpu", _CPU, "-smp", str(scenario.cpus), "-m", str(scenario.memory)),
        *("-kernel", str(work / "xen")),
        *("-append", f"console=com1 noreboot loglvl=info {scenario.xen}"),
        *("-initrd", f"{kernel} {scenario.dom0},{work / 'initramfs'}"),
        *("-drive", f"file={disk},format=raw,if=ide"),
    ]
    with Machine(work, arguments) as machine:
        for dump in scenario.dumps:
            machine.wait(_HALTED if dump == CRASHED else f"LAB-FREEZE-{dump}", _PATIENCE)
            machine.dump(out / f"{dump}.vmcore")
        if CRASHED not in scenario.dumps:
            machine.wait("LAB-SAVED", _PATIENCE)
        (out / "console.log").write_bytes(machine.console.read_bytes())
    if scenario.disk:
        with tarfile.open(disk, "r:") as archive:
            archive.extractall(out, filter="data")
    disk.unlink()
    found = truth.of_guests(out, scenario)
    (out / "truth.json").write_text(json.dumps(found, indent=1) + "\n")


def _root(folder: Path, release: str) -> Path:
    """The unpacked packages of the host."""
    version = {"bookworm": "4.17", "trixie": "4.20"}[release]
    names = [f"xen-hypervisor-{version}-amd64", f"xen-utils-{version}"]
    return Release(folder, release).unpacked([*names, "linux-image-amd64", "busybox-static"])


def _i386(folder: Path) -> Path:
    """The last release with 32-bit kernels."""
    names = ["linux-image-6.1.0-50-686-pae:i386", "busybox-static:i386"]
    return Release(folder, "bookworm").unpacked(names, closure=False)


def _dom0(folder: Path, root: Path, scenario: Scenario) -> bytes:
    archive = Archive()
    archive.program(root, _busybox(root))
    library = _only(root / "usr" / "lib", "xen-4.*")
    inside = library.relative_to(root)
    for name in _TOOLS:
        path = library / "bin" / name
        archive.program(root, str(path.relative_to(root)))
    for name in _HELPERS:
        archive.program(root, f"{inside}/bin/{name}", f"{inside}/bin/{name}")
    archive.modules(root, _MODULES)
    if any(guest.type == "hvm" for guest in scenario.guests):
        loader = f"{inside}/boot/hvmloader"
        archive.add(loader, (root / loader).read_bytes())
        _device_model(archive, Release(folder, scenario.release).unpacked([_DEVICE_MODEL]))
    settings = {
        "LIBEXEC": f"/{inside}/bin",
        "DISK": "/dev/sda" if scenario.disk else "",
        "CRASH": "yes" if CRASHED in scenario.dumps else "",
    }
    archive.add("settings.sh", "".join(f"{k}={v}\n" for k, v in settings.items()).encode())
    archive.add("init", (HERE / "dom0-init.sh").read_bytes())
    archive.add("report.sh", (HERE / "report.sh").read_bytes())
    archive.add("bin/spin", spin.program(8))
    archive.add("scenario.sh", scenario.script.encode())
    for guest in scenario.guests:
        archive.add(f"guests/{guest.name}.cfg", guest.configuration().encode())
    for word in {guest.word for guest in scenario.guests}:
        packages = root if word == 8 else _i386(folder)
        kernel = _only(packages / "boot", "vmlinuz-*")
        archive.add(f"guests/vmlinuz{word}", kernel.read_bytes())
        archive.add(f"guests/initramfs{word}", _guest(packages, word))
    return archive.bytes(compressed=False)


def _device_model(archive: Archive, root: Path) -> None:
    """The QEMU in dom0 that emulates the devices of HVM guests, and the firmware they boot with."""
    program = "usr/libexec/xen-qemu-system-i386"
    archive.program(root, program, program)
    for name in _FIRMWARE:
        archive.add(name, (root / name).read_bytes(), 0o644)


def _guest(root: Path, word: int) -> bytes:
    archive = Archive()
    archive.program(root, _busybox(root))
    archive.add("bin/spin", spin.program(word))
    archive.add("report.sh", (HERE / "report.sh").read_bytes())
    archive.add("init", (HERE / "guest-init.sh").read_bytes())
    return archive.bytes()


def _busybox(root: Path) -> str:
    """The path of the static program; /bin is /usr/bin since Debian 13."""
    found = (name for name in ("usr/bin/busybox", "bin/busybox") if (root / name).exists())
    return next(found)


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


if __name__ == "__main__":
    main()
