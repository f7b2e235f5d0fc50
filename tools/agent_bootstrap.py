"""What runs first in the one-file agent: unpacks it once, since compiled libraries cannot be loaded from a zip.

Into CORDON_AGENT_CACHE, the CacheDirectory= of systemd, /var/cache/cordon-agent for root, or ~/.cache/cordon-agent.
"""

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

KEPT = 2  # unpacked versions: this one, and the one before, which may still be running


def cache() -> Path:
    """Where to unpack to."""
    named = os.environ.get("CORDON_AGENT_CACHE") or os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/cache/cordon-agent")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cordon-agent"


def unpacked(archive: Path) -> Path:
    """The folder with this very archive's content, made where it is missing."""
    folder = cache()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise SystemExit(f"cordon-agent: {folder} belongs to, or may be written by, somebody else: not used")
    with zipfile.ZipFile(archive) as content:
        abi, digest = content.read("BUILD").decode().split()
        here = f"{sys.version_info[0]}.{sys.version_info[1]}-{os.uname().machine}"
        if abi != here:
            raise SystemExit(f"cordon-agent: made for Python {abi}, this is {here}")
        target = folder / digest
        if not target.is_dir():
            fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
            content.extractall(fresh)
            try:
                fresh.rename(target)
            except OSError:  # another one was faster
                shutil.rmtree(fresh, ignore_errors=True)
    versions = [path for path in folder.iterdir() if path.is_dir() and path != target]
    versions.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in versions[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def run() -> int:
    """Unpack, then be the agent."""
    sys.path.insert(0, str(unpacked(Path(sys.argv[0]).resolve())))
    from device_agent.main import main

    return main()


if __name__ == "__main__":
    raise SystemExit(run())
