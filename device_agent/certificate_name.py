"""`python -m device_agent.certificate_name FILE`: the common names of a PEM certificate, as a JSON list."""

import json
import sys
from pathlib import Path

from cryptography import x509


def names(pem: bytes) -> list[str]:
    """The common names in the subject.

    Raises:
        ValueError: no PEM certificate.
    """
    subject = x509.load_pem_x509_certificate(pem).subject
    return [str(name.value) for name in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


def main(path: str) -> int:
    """Print them; status 1 where it is no certificate."""
    try:
        sys.stdout.write(json.dumps(names(Path(path).read_bytes())) + "\n")
    except (OSError, ValueError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
