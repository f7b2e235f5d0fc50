"""The types that every table of `cordon.toml` is made of."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from schemas.durations import parse_duration
from schemas.secret_sources import OutsideSecret, SecretSource, key_file, secret_source


def _seconds(value: Any) -> float:
    return parse_duration(value if isinstance(value, str) else repr(value))


def _resolved(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else Path(info.context) / path


def _resolved_secret(value: Any, info: ValidationInfo) -> SecretSource:
    source = value if isinstance(value, OutsideSecret) else secret_source(str(value))
    return _resolved(source, info) if isinstance(source, Path) else source


def _key_file(value: Any) -> Path:
    return key_file(str(value))


Duration = Annotated[float, BeforeValidator(_seconds)]  # seconds; written as 90s, 10m, 2h, 1d
# Relative paths are relative to the validation context: the folder of the file that is read.
ConfigPath = Annotated[Path, AfterValidator(_resolved)]
ConfigKeyFile = Annotated[Path, BeforeValidator(_key_file), AfterValidator(_resolved)]
ConfigSecret = Annotated[Path | OutsideSecret, BeforeValidator(_resolved_secret)]
ListenAddress = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")]  # host:port


def host_of(address: str) -> str:
    """The host of a `ListenAddress`, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a listener on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether a listener on `host` takes connections to every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def shown_address(host: str, port: int) -> str:
    """Returns `host:port` as a URL has it, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SettingsTable(BaseModel):
    """A table of the file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
