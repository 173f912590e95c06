"""The package of a distribution that has a kernel's vmlinux with debug information."""

import re

#: A release that is shown; include/uapi/linux/utsname.h: it has up to 64 bytes.
_RELEASE = r"[\w.+~-]{1,64}"
#: What the banner of a distribution's own kernel has, with the name of the package. The compiler
#: alone is not enough: it is the same for kernels that users build.
_PACKAGES = (
    (rb"\(debian-kernel@lists\.debian\.org\)", "linux-image-{}-dbg"),
    (rb"\(buildd@[^()]*\) .*\bUbuntu\b", "linux-image-{}-dbgsym"),
    (rb"\(mockbuild@[^()]*\) .*\(Red Hat ", "kernel-debuginfo-{}"),
)


def of(release: str, banner: bytes) -> str | None:
    """The package, by a kernel's release and its linux_banner; None if it is not known."""
    if not re.fullmatch(_RELEASE, release, re.ASCII):
        return None
    for pattern, name in _PACKAGES:
        if re.search(pattern, banner):
            return name.format(release)
    return None
