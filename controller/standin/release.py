"""In what the imitated releases of EMQX differ."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class EmqxRelease:
    """One release that the stand-in can answer as."""

    version: str
    no_match: Literal["allow", "deny"]  # default of `authorization.no_match`
    # Whether a client id `+` becomes the wildcard where a rule has `${clientid}`.
    plus_is_wildcard: bool


EMQX_5_8: Final = EmqxRelease("5.8.9", "allow", plus_is_wildcard=True)
EMQX_6_3: Final = EmqxRelease("6.3.0-beta.2", "deny", plus_is_wildcard=False)
RELEASES: Final[dict[str, EmqxRelease]] = {"5.8": EMQX_5_8, "6.3": EMQX_6_3}
