# ruff: noqa: INP001 - a script, run by its path
"""Exit status 0 when the controller says it can do its work: the image's health check.

`CORDON_URL` and `CORDON_CA` are the same variables as for `cordon`; a certificate has to name the URL's host.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request
from typing import Final

_SECONDS: Final = 5.0
_SHOWN: Final = 500  # bytes of the answer


def main() -> int:
    """Ask once."""
    url, ca = os.environ.get("CORDON_URL", "http://127.0.0.1:8480"), os.environ.get("CORDON_CA")
    if not url.startswith(("http://", "https://")):
        sys.stderr.write(f"CORDON_URL: {url!r} is not http or https\n")
        return 1
    tls = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None
    # A proxy of the environment must not be asked how we are.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    try:
        with opener.open(f"{url}/readyz", timeout=_SECONDS):
            return 0
    except urllib.error.HTTPError as e:
        with e:
            sys.stderr.write(f"{e.code} {e.read(_SHOWN).decode(errors='replace')}\n")
    except OSError as e:
        sys.stderr.write(f"{url}: {e}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
