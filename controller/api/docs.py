"""The API reference as one HTML page without scripts or external resources, from the OpenAPI description."""

from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from controller.api.auth import public

router = APIRouter(include_in_schema=False, dependencies=[public("the reference: the same for every controller")])

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ccc}code{font-family:ui-monospace,monospace}"
    ".m{display:inline-block;min-width:4.5rem;font-weight:600}article{margin:1.2rem 0}"
    "table{border-collapse:collapse;margin:.4rem 0}td,th{border:1px solid #ddd;padding:.2rem .6rem;text-align:left}"
)


@router.get("/api/docs", response_class=HTMLResponse)
async def reference(request: Request) -> Response:
    """Returns every route with its parameters, body and responses."""
    return Response(_encoded(request)[0], media_type="text/html")


@router.get("/api/openapi.json")
async def description(request: Request) -> Response:
    """Returns the OpenAPI description."""
    return Response(_encoded(request)[1], media_type="application/json")


def _encoded(request: Request) -> tuple[bytes, bytes]:
    """Returns both forms, which are made once: anybody may ask for them, and to make them takes the loop tens of ms."""
    state = request.app.state
    if not hasattr(state, "reference"):
        openapi = request.app.openapi()
        state.reference = (page(openapi).encode(), JSONResponse(openapi).body)
    made: tuple[bytes, bytes] = state.reference
    return made


def page(openapi: dict[str, Any]) -> str:
    """Returns the reference of an OpenAPI description as HTML."""
    groups: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            group = operation.get("tags", ["other"])[0]
            groups.setdefault(group, []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{escape(group)}</h2>{''.join(parts)}" for group, parts in groups.items())
    models = "".join(_model(name, schema) for name, schema in openapi["components"]["schemas"].items())
    title = escape(openapi["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} API</title><style>{_STYLE}</style>'
        f"<h1>{title} API</h1><p>{escape(openapi['info']['description'])}</p>"
        '<p>Send <code>Authorization: Bearer cordon_...</code>. <a href="/api/openapi.json">OpenAPI description</a></p>'
        f"{body}<h2>Models</h2>{models}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f'<article><div><span class="m">{method.upper()}</span> <code>{escape(path)}</code></div>']
    parts.append(f"<div>{escape(operation.get('description', ''))}</div>")
    rows = [
        _row(one["name"], one["in"], _kind(one["schema"]), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        rows.append(_row("body", "body", _kind(content["schema"]), ""))
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        rows.append(_row(status, "answer", _kind(schema), answer["description"]))
    return "".join(parts) + f"<table>{''.join(rows)}</table></article>"


def _model(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        _row(field, "" if field in required else "optional", _kind(kind), kind.get("description", ""))
        for field, kind in schema.get("properties", {}).items()
    ]
    head = f"<code>{escape(name)}</code> {escape(schema.get('description', ''))}"
    return f'<article id="{escape(name)}">{head}<table>{"".join(rows)}</table></article>'


def _row(*cells: str) -> str:
    name, place, kind, description = cells
    cells = (f"<code>{escape(name)}</code>", escape(place), kind, escape(description))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _kind(schema: dict[str, Any]) -> str:
    """Returns a type as HTML: links to models, alternatives separated by a bar."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema or "oneOf" in schema:
        return " | ".join(_kind(one) for one in schema.get("anyOf", schema.get("oneOf", ())))
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    return escape(" ".join(str(schema[key]) for key in ("type", "format", "pattern") if key in schema))
