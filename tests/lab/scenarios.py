"""The hosts that the lab makes, as data."""

from typing import NamedTuple

#: The dump that is taken after dom0 has panicked.
CRASHED = "crashed"


class Guest(NamedTuple):
    """An unprivileged domain."""

    name: str
    #: ``pv``, ``pvh`` or ``hvm``.
    type: str
    vcpus: int = 2
    #: Physical CPUs on which its vCPUs run, by number of the vCPU. dom0 has CPU 0 to itself.
    cpus: tuple[int, ...] = (1, 1)
    memory: int = 128
    word: int = 8
    #: Further lines of its configuration.
    more: tuple[str, ...] = ()

    def configuration(self) -> str:
        """Its configuration for xl."""
        lines = [
            f'name = "{self.name}"',
            f'type = "{self.type}"',
            f'kernel = "/guests/vmlinuz{self.word}"',
            f'ramdisk = "/guests/initramfs{self.word}"',
            f'cmdline = "console=hvc0 quiet panic=0 lab_name={self.name} tsc=unstable"',
            f"memory = {self.memory}",
            f"maxmem = {self.memory}",
            f"vcpus = {self.vcpus}",
            f"cpus = [{', '.join(map(str, self.cpus))}]",
            'on_crash = "preserve"',
            *self.more,
        ]
        return "\n".join(lines) + "\n"


class Scenario(NamedTuple):
    """A host, and what happens on it."""

    name: str
    guests: tuple[Guest, ...]
    #: Shell script that dom0 runs. ``freeze NAME`` is where the dump NAME is taken.
    script: str
    #: The dumps in their order.
    dumps: tuple[str, ...]
    #: Whether dom0 can write to the disk.
    disk: bool = True
    release: str = "trixie"
    cpus: int = 2
    memory: int = 1536
    xen: str = "dom0_mem=640M,max:640M dom0_max_vcpus=1 dom0_vcpus_pin"
    dom0: str = "console=hvc0 quiet"
    qemu: tuple[str, ...] = ("-machine", "pc")


_PVH = Guest("pvh", "pvh")
#: Xen 4.20 in Debian has no shadow paging. Under nested paging a kernel with PAE cannot boot in
#: QEMU, which sets the accessed bit in entries of the page-directory-pointer table: Xen's own walk
#: of these tables, by which it reads instructions, takes it for a reserved bit.
_SHADOW = Guest("shadow", "pvh", more=("hap = 0",))
_PAE = Guest("pae", "pvh", vcpus=1, cpus=(2,), word=4, more=("hap = 0",))
_PV = Guest("pv", "pv", cpus=(2, 2))
_HVM = Guest("hvm", "hvm", more=('vga = "none"', "vnc = 0"))

_DOM0 = Guest("dom0", "pvh", cpus=(0, 1))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # A PVH guest under nested paging and a PV guest, each with a vCPU that never leaves user
        # mode. xl dump-core of a PVH guest takes too long under emulation: it tries to map each of
        # the 2^20 frame numbers.
        Scenario(
            "mixed",
            (_PVH, _PV),
            """
start pvh
start pv
freeze running
xl pause pv
xl dump-core pv /out/pv.core
freeze paused
xl unpause pv
for guest in pv pvh; do
    xl save -p $guest /out/$guest.save
done
freeze saved
xl unpause pv
xl unpause pvh
""",
            ("running", "paused", "saved", CRASHED),
            cpus=3,
            memory=2048,
            xen="dom0_mem=1024M,max:1024M dom0_max_vcpus=1 dom0_vcpus_pin",
        ),
        # A guest with a device model: QEMU in dom0 emulates a PC. The firmware boots the kernel.
        Scenario(
            "hvm",
            (_HVM,),
            """
start hvm
freeze running
xl save -p hvm /out/hvm.save
freeze saved
xl unpause hvm
""",
            ("running", "saved", CRASHED),
            memory=2048,
            xen="dom0_mem=1024M,max:1024M dom0_max_vcpus=1 dom0_vcpus_pin",
        ),
        Scenario(
            "shadow",
            (_SHADOW, _PAE),
            "start shadow\nstart pae\nfreeze running\n",
            ("running", CRASHED),
            release="bookworm",
            cpus=3,
        ),
        # A PVH dom0 needs an IOMMU. Xen takes the one that the firmware describes, whatever the
        # CPU's vendor; QEMU's model of Intel's is the one that Xen can use.
        Scenario(
            "pvh-dom0",
            (_DOM0,),
            ". /report.sh\nfreeze running\n",
            ("running", CRASHED),
            # Xen cannot assign the controller.
            disk=False,
            cpus=2,
            memory=1024,
            xen="dom0=pvh dom0_mem=512M,max:512M dom0_max_vcpus=2 iommu=no-intremap",
            dom0="console=hvc0 quiet lab_name=dom0",
            qemu=("-machine", "q35", "-device", "intel-iommu"),
        ),
    )
}
