"""A web server for a repository of updates, with faults for single files."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_RANGE: Final = re.compile(r"^bytes=(\d+)-$")
_PIECE: Final = 16 * 1024


class UpdateServer:
    """Serves a folder; the keys of the faults are ends of paths.

    `replace`: other content; `missing`: 404; `endless`: never ends; `slow`: a byte now and then; `cut`: ends after so
    many bytes, so many times; `refuse`: this status, so many times, with `retry_after` (empty: without). `requests`
    are the requested paths and ranges. `tag`: the server's own entity tag, with which it answers `If-Range`;
    `partial_status`: of the answer to a range; `block`: a range begins at a multiple of it; `most`: bytes of a partial
    answer, 0 for all; `range_text`: the form of `Content-Range`, empty for none.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.replace: dict[str, bytes] = {}
        self.missing: set[str] = set()
        self.endless: set[str] = set()
        self.slow: set[str] = set()
        self.cut: dict[str, tuple[int, int]] = {}
        self.refuse: dict[str, tuple[int, int]] = {}
        self.retry_after = ""
        self.requests: list[tuple[str, str]] = []
        self.knows_ranges = True
        self.tag = ""
        self.partial_status = 206
        self.block = 1
        self.most = 0
        self.range_text = "bytes {start}-{end}/{total}"
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                """Logs nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """Ignores devices that close the connection."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fault(self, path: str, faults: Any) -> str | None:
        return next((key for key in faults if path.endswith(key)), None)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        requested = request.headers.get("Range", "")
        self.requests.append((path, requested))
        refused = self._fault(path, self.refuse)
        if refused is not None and self.refuse[refused][1] > 0:
            self._refuse(request, refused)
            return
        replaced = self._fault(path, self.replace)
        file = self.folder / path.lstrip("/")
        if self._fault(path, self.endless) is not None or self._fault(path, self.slow) is not None:
            self._send_forever(request, slowly=self._fault(path, self.slow) is not None)
            return
        if self._fault(path, self.missing) is not None or (replaced is None and not file.is_file()):
            request.send_error(404)
            return
        content = self.replace[replaced] if replaced is not None else file.read_bytes()
        match = _RANGE.match(requested)
        is_same = request.headers.get("If-Range", self.tag) == self.tag
        start = int(match[1]) if match and self.knows_ranges and is_same else 0
        if start >= len(content):
            request.send_error(416)
            return
        is_partial, start = start > 0, start - start % self.block
        body = content[start : start + self.most] if is_partial and self.most else content[start:]
        request.send_response(self.partial_status if is_partial else 200)
        request.send_header("Content-Length", str(len(body)))
        if self.tag:
            request.send_header("ETag", self.tag)
        if is_partial and self.range_text:
            fields = {"start": start, "end": start + len(body) - 1, "total": len(content)}
            request.send_header("Content-Range", self.range_text.format(**fields))
        request.end_headers()
        cut = self._fault(path, self.cut)
        if cut is not None and self.cut[cut][1] > 0:
            length, times = self.cut[cut]
            self.cut[cut] = (length, times - 1)
            request.wfile.write(body[:length])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return
        for at in range(0, len(body), _PIECE):
            request.wfile.write(body[at : at + _PIECE])

    def _refuse(self, request: BaseHTTPRequestHandler, key: str) -> None:
        status, times = self.refuse[key]
        self.refuse[key] = (status, times - 1)
        request.send_response(status)
        if self.retry_after:
            request.send_header("Retry-After", self.retry_after)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send_forever(self, request: BaseHTTPRequestHandler, *, slowly: bool) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        while not self._stopping.wait(0.05 if slowly else 0.0):
            request.wfile.write(b"{" if slowly else b"x" * _PIECE)
            request.wfile.flush()
