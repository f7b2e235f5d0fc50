"""Structured logs: JSON, or readable lines at a terminal."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal

import structlog

from controller.ports.log import Log
from schemas.base import shortened

MAX_VALUE: Final = 8 * 1024  # characters of one field, or of an exception with its traceback
# Everything else has the level info; audit lines that are alerts are warnings.
_ERRORS: Final = frozenset(
    {"message failed", "effect failed", "store cannot write", "policies not loaded, the old ones stay"}
)
_WARNINGS: Final = frozenset(
    {
        "mqtt_failed",
        "mqtt_lost",
        "mqtt_publish_refused",
        "mqtt_publish_impossible",
        "effect will be retried",
        "cannot compare with the broker",
        "cannot prune the store",
        "Cordon's ban of an unknown device: left alone",
        "the broker lacks what Cordon needs",
    }
)


def _bounded(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Bounds every value of a line: exceptions have texts of others in them, of any length."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = shortened(value, MAX_VALUE)
        elif not isinstance(value, int | float | None) and len(text := repr(value)) > MAX_VALUE:
            event[name] = shortened(text, MAX_VALUE)
    return event


def configure_logs(level: str, style: Literal["auto", "json", "console"]) -> None:
    """Sends all logs to standard error, including those of libraries (uvicorn, httpx)."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _bounded,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Every request to the broker would be a line; failures are logged where they matter.
    for noisy in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns once or twice for each request that is malformed or asks for an upgrade: anybody could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # It writes a line for each key that did not sign, also where enough others did; what fails is raised.
    logging.getLogger("tuf").setLevel(logging.ERROR)


def logger_for(part: str) -> Log:
    """Returns the log function of a part of the controller."""
    logger = structlog.stdlib.get_logger(part)

    def log(event: str, fields: Mapping[str, object]) -> None:
        if event in _ERRORS:
            logger.error(event, part=part, **fields)
        elif event in _WARNINGS or fields.get("alert"):
            logger.warning(event, part=part, **fields)
        else:
            logger.info(event, part=part, **fields)

    return log
