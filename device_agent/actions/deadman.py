"""The dead-man timer of a firewall change: restores the former rules unless the agent commits the change in time.

A program of its own, because the agent may be killed meanwhile: `python -c <this file> SECONDS PENDING NFT`. It uses
the standard library alone and belongs to no package, so that it starts quickly wherever the agent is installed.

The first to move the file PENDING away decides: the agent removes it to keep the new rules, this program renames it to
restore the former ones.
"""

import os
import subprocess
import sys
import time


def main(seconds: float, pending: str, nft: str) -> int:
    """Waits, then restores the rules in `pending` unless the agent removed the file."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        if not os.path.exists(pending):  # noqa: PTH110 - pathlib would triple the memory of a program that only waits
            return 0
    claimed = pending + ".undoing"
    try:
        os.rename(pending, claimed)  # noqa: PTH104 - see above
    except FileNotFoundError:
        return 0
    done = subprocess.run([nft, "-f", claimed], check=False, stdin=subprocess.DEVNULL)
    os.rename(claimed, pending + ".undone")  # noqa: PTH104 - see above
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3]))
