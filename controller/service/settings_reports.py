"""The table `[reports]` of `cordon.toml`."""

from typing import Annotated

from pydantic import Field, StringConstraints

from controller.service.settings_base import Duration, Part

MAX_CLASSES = 64  # classes that have to sign
_Class = Annotated[str, StringConstraints(pattern=r"^(?:\*|[A-Za-z0-9._:/-]{1,64})$")]


class ReportSettings(Part):
    """`must_sign`: classes whose reports have to be signed, `*` for all; `max_age`: of a signed report.

    `must_answer`: a contained device is freed by nothing but an answered nonce, also where its agent knows of none.
    """

    must_sign: Annotated[tuple[_Class, ...], Field(max_length=MAX_CLASSES)] = ()
    max_age: Annotated[Duration, Field(ge=60.0)] = 3600.0
    must_answer: bool = False
