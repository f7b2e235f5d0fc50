"""Has listeners take changed files of certificate and key into use, without a restart."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvicorn

from controller.ports.log import Log

RELOAD_EVERY: Final = 5.0  # seconds between two looks at the files


class CertificateReloader:
    """Looks at the certificate and key of uvicorn's configurations; those without TLS are left alone."""

    def __init__(self, configs: Sequence[uvicorn.Config], log: Log) -> None:
        self._configs = configs
        self._log = log
        self._seen: dict[int, tuple[int, ...]] = {}
        self._troubles: dict[int, str] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self.run_once()
            await asyncio.sleep(RELOAD_EVERY)

    def run_once(self) -> None:
        """Looks at the files once; what cannot be used leaves the pair in use as it is."""
        for number, config in enumerate(self._configs):
            trouble = ""
            try:
                self._reload(number, config)
            except OSError as e:
                trouble = str(e)
            if trouble and self._troubles.get(number) != trouble:
                self._log("certificate not reloaded", {"file": str(config.ssl_certfile), "error": trouble})
            self._troubles[number] = trouble

    def _reload(self, number: int, config: uvicorn.Config) -> None:
        if not config.loaded or config.ssl is None or config.ssl_certfile is None:
            return
        certificate, key = config.ssl_certfile, config.ssl_keyfile
        stats = [Path(path).stat() for path in (certificate, key) if path]
        state = tuple(value for one in stats for value in (one.st_ino, one.st_mtime_ns, one.st_size))
        before = self._seen.get(number)
        if state == before:
            return
        self._seen[number] = state
        # In a context of its own first: a pair that does not match would leave the one in use without a key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
        # Also at the first look: the files may have changed since the server read them.
        config.ssl.load_cert_chain(certificate, key, password=lambda: b"")
        if before is not None:
            self._log("certificate reloaded", {"file": str(certificate)})
