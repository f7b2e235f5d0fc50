"""`python -m device_agent.identity.certificate_child FILE`: what matters of a PEM certificate, as a JSON object."""

import base64
import json
import sys
from pathlib import Path

from device_agent.host.certificate import IdentityError, read_file
from device_agent.identity.keypair import common_names, read_leaf


def main(path: str) -> int:
    """Print it; status 1 where it is no certificate."""
    try:
        content = read_file(Path(path))
        leaf = read_leaf(content)
    except IdentityError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    found = {
        "names": common_names(content),
        "serial": leaf.serial,
        "start": leaf.start,
        "end": leaf.end,
        "key": base64.b64encode(leaf.key).decode(),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
