"""Templates, static files and the headers of pages. Whatever a page shows may be written by somebody hostile."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import segno
from fastapi import Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

STATIC: Final = "/static/"
_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_DIGITS: Final = 12  # hex digits of a file's digest in its name
_MAX_SHOWN: Final = 20_000  # characters of one text
_QR_BORDER: Final = 4  # modules, which readers need around the code
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not no-referrer: browsers would send `Origin: null` with forms, and no session could change anything.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": (
        "camera=(), geolocation=(), microphone=(), "
        "publickey-credentials-create=(self), publickey-credentials-get=(self)"
    ),
}


def shown(value: object) -> object:
    """Returns a text as it is shown: bounded, and unprintable characters and such that turn the text as escapes."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
    if text.isprintable() and _BIDI.isdisjoint(text):
        return text
    return "".join(one if one.isprintable() and one not in _BIDI else f"\\u{ord(one):04x}" for one in text)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = _static_path
    return environment


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Returns a page; a value that a template uses and that is missing is an error."""
    return HTMLResponse(_templates().get_template(template).render(values), status, HEADERS)


@cache
def _static() -> Mapping[str, tuple[bytes, str]]:
    """The content and type of each static file, by a name that changes with the content."""
    return dict(_read_static())


def _read_static() -> Iterator[tuple[str, tuple[bytes, str]]]:
    for path in sorted((_FOLDER / "static").iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
            yield f"{path.stem}-{digest}{path.suffix}", (content, _TYPES[path.suffix])


def _static_path(name: str) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    return STATIC + next(one for one in _static() if one.startswith(f"{stem}-") and one.endswith(suffix))


def static_file(name: str) -> Response | None:
    """Returns a static file, which browsers keep for ever; None if there is none of this name."""
    found = _static().get(name)
    if found is None:
        return None
    headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(found[0], media_type=found[1], headers=headers)


def qr_path(text: str) -> dict[str, object]:
    """Returns the QR code of a text as the path of an SVG of `size` units: a line for each run of dark modules."""
    rows = [bytes(row) for row in segno.make(text, error="m", micro=False).matrix]
    parts = []
    for y, row in enumerate(rows):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end] == row[x]:
                end += 1
            if row[x]:
                parts.append(f"M{x + _QR_BORDER} {y + _QR_BORDER}.5h{end - x}")
            x = end
    return {"size": len(rows) + 2 * _QR_BORDER, "path": "".join(parts)}
