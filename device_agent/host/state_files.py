"""Pydantic models as files of the state folder: read with a size limit, replaced atomically."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from device_agent.errors import JournalError
from device_agent.host.files import write_whole

_Model = TypeVar("_Model", bound=BaseModel)


def read_model(path: Path, model: type[_Model], max_bytes: int, consequence: str = "") -> _Model | None:
    """Returns the content of a file; None when there is no such file.

    `consequence` says in the error what ignoring a damaged file would mean.

    Raises:
        JournalError: it is too large, cannot be read, or is damaged.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise JournalError(f"{path} is larger than {max_bytes} bytes: not written by this agent")
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as e:
        raise JournalError(f"{path}: {e.strerror}") from e
    except ValidationError as e:
        reason = f"; {consequence}" if consequence else ""
        raise JournalError(f"{path} is damaged{reason}: look at it, then move it away") from e


def write_model(path: Path, content: BaseModel) -> None:
    """Replaces a file; the content is on the disk when this returns (JournalError)."""
    try:
        write_whole(path, path.with_name(f".{path.name}.new"), content.model_dump_json().encode())
    except OSError as e:
        raise JournalError(f"{path}: {e.strerror}") from e
