"""Trims a root that debootstrap made to the files that the agent looks at, as the file of a platform.

`python -m tests.platforms.trim ROOT 'SOURCE' >> tests/platforms/roots/NAME.yaml`; name, overlays and expectations are
added by hand. Comments, empty lines, binaries and all but a few packages are left out.
"""

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from device_agent.collectors.registry import collectors_for_image
from device_agent.collectors.scan import Scanner
from device_agent.host.image_path import ImagePath
from device_agent.host.system import System

_PACKAGES: Final = (
    *("apparmor", "apt", "auditd", "base-files", "dpkg", "libc6", "libpam-modules", "libssl1.1", "libssl3"),
    *("libssl3t64", "openssh-server", "openssl", "rsyslog", "sudo", "systemd", "unattended-upgrades"),
)
_KEPT: Final = ("Package:", "Status:", "Version:", "Source:")
# Units that systemd's own folders start are the same everywhere.
_OF_THE_DISTRIBUTION: Final = re.compile(r"^/(usr/)?lib/systemd/system/([^/]+\.(wants|requires)/|systemd-)")
_MAX_BYTES: Final = 32 * 1024


def main() -> None:
    """Prints what the scan of the root looks at."""
    root, source = Path(sys.argv[1]), sys.argv[2]
    seen: set[tuple[str, ...]] = set()
    walk = ImagePath._walk

    def recorded(self: ImagePath, *, follow: bool) -> tuple[int, list[str]]:
        found = walk(self, follow=follow)
        seen.add(self.parts)
        seen.add((*Path(self.image_top).parts, *found[1]))
        return found

    ImagePath._walk = recorded  # type: ignore[method-assign] # only in this process
    system = System.image(root)
    Scanner(system, collectors_for_image()).scan()
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    programs: list[str] = []
    done: set[Path] = set()
    pending = sorted(Path("/", *parts) for parts in seen)
    while pending:
        path = pending.pop(0)
        name = "/" + str(path.relative_to(root))
        first = next((place for place in [*reversed(path.parents), path] if place.is_symlink()), None)
        if path in done or _OF_THE_DISTRIBUTION.match(name) or not os.path.lexists(path):
            continue
        done.add(path)
        if first is not None:
            links["/" + str(first.relative_to(root))] = str(first.readlink())
            if first != path:
                pending.append(
                    root
                    / str(system.path(str(first.relative_to(root))).resolve().relative_to(root))
                    / path.relative_to(first)
                )
            continue
        if stat.S_ISREG(path.lstat().st_mode):
            content = path.read_bytes()
            if content.startswith(b"\x7fELF"):
                programs.append(name)
            else:
                files[name] = _trimmed(name, content)
    result: dict[str, Any] = {"source": source, "links": links, "programs": programs, "files": files}
    yaml.add_representer(str, _as_block, yaml.SafeDumper)
    yaml.safe_dump(result, sys.stdout, sort_keys=False, width=110)


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _trimmed(name: str, content: bytes) -> str:
    if name == "/var/lib/dpkg/status":
        stanzas = [stanza.splitlines() for stanza in content.decode().split("\n\n")]
        kept = [
            [line for line in lines if line.startswith(_KEPT)]
            for lines in stanzas
            if lines and (lines[0].partition(": ")[2] in _PACKAGES or "linux-image" in lines[0])
        ]
        return "\n\n".join("\n".join(lines) for lines in kept) + "\n"
    if "/systemd/system/" in name:
        return "[Unit]\n" if content else ""
    if name.endswith("Release"):
        return content.decode(errors="replace").partition("\nMD5Sum:")[0].partition("\nSHA256:")[0] + "\n"
    if name.endswith((".gpg", ".asc")) or b"\0" in content or len(content) > _MAX_BYTES:
        return ""
    lines = [line.expandtabs(1).rstrip() for line in content.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("#", "//", ";"))) + "\n"


if __name__ == "__main__":
    main()
