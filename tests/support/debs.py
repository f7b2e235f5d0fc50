"""Debian packages, a signed apt repository, and a root folder for apt and dpkg."""

import hashlib
import subprocess
from email.utils import formatdate
from pathlib import Path
from typing import Final

_FOLDERS: Final = (
    "var/lib/dpkg/info",
    "var/lib/dpkg/updates",
    "var/lib/dpkg/triggers",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
    "var/log/apt",
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "usr/bin",
    "tmp",
)


def deb(folder: Path, name: str, version: str, *, depends: str = "", content: str = "") -> Path:
    """Builds a package with one file, `/usr/share/NAME/version`."""
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    place = tree / "usr/share" / name
    place.mkdir(parents=True)
    (place / "version").write_text(content or version)
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "Tests <tests@example.org>",
        **({"Depends": depends} if depends else {}),
        "Description": "made by a test",
    }
    (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    file = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, file], check=True, capture_output=True, timeout=60)
    return file


def apt_root(folder: Path) -> Path:
    """Makes an empty system for apt and dpkg."""
    for one in _FOLDERS:
        (folder / one).mkdir(parents=True)
    for name in ("status", "available", "diversions", "statoverride"):
        (folder / "var/lib/dpkg" / name).touch()
    return folder


def signed_source(folder: Path, packages: list[Path], root: Path) -> Path:
    """Makes a signed flat apt repository of these packages, a source of `root`; returns its folder."""
    folder.mkdir()
    home = folder.parent / "gpg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "tests@example.org", "ed25519", "sign", "1d"], check=True, timeout=60)
    key = root / "etc/apt/trusted.gpg.d/tests.gpg"
    subprocess.run([*gpg, "--output", str(key), "--export"], check=True, timeout=60)
    entries = []
    for package in packages:
        content = package.read_bytes()
        (folder / package.name).write_bytes(content)
        control = subprocess.run(
            ["dpkg-deb", "-f", package], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        sha256 = hashlib.sha256(content).hexdigest()
        entries.append(f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {sha256}\n")
    index = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(index)
    release = (
        f"Origin: Tests\nLabel: Tests\nSuite: stable\nDate: {formatdate(usegmt=True)}\n"
        f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    )
    (folder / "Release").write_text(release)
    subprocess.run(
        [*gpg, "--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release")], check=True, timeout=60
    )
    (root / "etc/apt/sources.list").write_text(f"deb file:{folder} ./\n")
    return folder


def stop_gpg_agent(folder: Path) -> None:
    """Stops the agent that gpg started for the key of `signed_source`."""
    home = folder.parent / "gpg"
    if home.is_dir():
        subprocess.run(
            ["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, capture_output=True, timeout=60
        )
