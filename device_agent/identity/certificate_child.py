"""`python -m device_agent.identity.certificate_child FILE`: prints the fields of a PEM certificate as JSON.

The only caller is `device_agent.host.certificate`.
"""

import base64
import json
import sys
from pathlib import Path

from device_agent.host.certificate import IdentityError, read_file
from device_agent.identity.keypair import common_names, load_leaf_certificate


def main(path: str) -> int:
    """Prints the fields; returns the exit status, 1 for anything but a certificate."""
    try:
        content = read_file(Path(path))
        certificate = load_leaf_certificate(content)
    except IdentityError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    fields = {
        "names": common_names(content),
        "serial": certificate.serial,
        "start": certificate.not_before,
        "end": certificate.not_after,
        "key": base64.b64encode(certificate.public_key_der).decode(),
    }
    sys.stdout.write(json.dumps(fields) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
