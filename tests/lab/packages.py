"""Downloads Debian packages and unpacks them, without installing any.

apt works on a state of its own in the lab's folder, so that neither the machine's release nor its
installed packages matter. Packages are verified by Debian's archive key.
"""

import subprocess
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"


class Release:
    """The packages of one Debian release."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder / name
        state = self._folder / "apt"
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (state / needed).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        sources = state / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {MIRROR} {name} main\n")
        options = {
            "Dir::State": state / "state",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
        }
        self._options = [f"-o{key}={value}" for key, value in options.items()]
        self._options += ["-oAPT::Architectures::=amd64", "-oAPT::Architectures::=i386"]

    def unpacked(self, packages: list[str], *, closure: bool = True) -> Path:
        """A folder with the contents of these packages and, with ``closure``, their dependencies.

        A package of another architecture is named as in ``busybox-static:i386``.
        """
        root = self._folder / ("root-" + "+".join(packages).replace(":", "-"))
        done = root / ".complete"
        if done.exists():
            return root
        lists = self._folder / "apt" / "state" / "lists"
        if not any(lists.glob("*_Packages*")):
            self._apt("update")
        if closure:
            archives = self._folder / "apt" / "cache" / "archives"
            before = set(archives.glob("*.deb"))
            for package in before:
                package.unlink()
            self._apt("--yes", "--download-only", "install", *packages)
        else:
            archives = self._folder / f"archives-{len(list(self._folder.iterdir()))}"
            archives.mkdir()
            self._apt("download", *packages, cwd=archives)
        root.mkdir(exist_ok=True)
        for package in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
            package.unlink()
        done.touch()
        return root

    def _apt(self, *arguments: str, cwd: Path | None = None) -> None:
        subprocess.run(["apt-get", "-q", *self._options, *arguments], check=True, cwd=cwd)
