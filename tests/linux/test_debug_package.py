"""The package with a kernel's vmlinux."""

import pytest

from xenkdump_fast.linux.boot import debug_package


@pytest.mark.parametrize(
    ("banner", "release", "package"),
    [
        (
            "(debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld)",
            "6.1.0-50-686",
            "linux-image-6.1.0-50-686-dbg",
        ),
        (
            "(buildd@lcy02-amd64-045) (gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0, GNU ld)",
            "5.15.0-91-generic",
            "linux-image-5.15.0-91-generic-dbgsym",
        ),
        (
            "(mockbuild@builder.example) (gcc (GCC) 13.2.1 20231011 (Red Hat 13.2.1-4), GNU ld)",
            "6.6.8-200.fc39.x86_64",
            "kernel-debuginfo-6.6.8-200.fc39.x86_64",
        ),
        # A kernel that a user has built with the compiler of Debian.
        ("(user@host) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld)", "6.1.0", None),
        ("(debian-kernel@lists.debian.org) (gcc)", "6.1.0\x1b[2J", None),
        ("(debian-kernel@lists.debian.org) (gcc)", "6" * 65, None),
        ("", "6.1.0", None),
    ],
)
def test_packages(banner: str, release: str, package: str | None) -> None:
    text = f"Linux version {release} {banner} #1 SMP".encode()
    assert debug_package.of(release, text) == package
