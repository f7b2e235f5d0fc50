"""Sets what passwords have to be: their length and variety, and how long they last."""

from typing import Final

from device_agent.actions.base import InvalidParamsError, Params, number, only
from device_agent.actions.edit import FileAction, FileContents, option, read, set_option

_LOGIN_DEFS: Final = "/etc/login.defs"
_PWQUALITY: Final = "/etc/security/pwquality.conf"
# Parameter: its least and greatest value, its name in login.defs and in pwquality.conf.
_LIMITS: Final = {
    "min_length": (6, 128, "PASS_MIN_LEN", "minlen"),
    "min_classes": (1, 4, "", "minclass"),
    "max_days": (1, 3650, "PASS_MAX_DAYS", ""),
    "min_days": (0, 365, "PASS_MIN_DAYS", ""),
    "warn_days": (0, 365, "PASS_WARN_AGE", ""),
}


class SetPasswordPolicy(FileAction):
    """`password.policy {min_length, min_classes, max_days, min_days, warn_days}`: for passwords set from now on.

    Ageing of accounts that are there already stays as it is; where pwquality is not installed, its part is left out.
    """

    def check(self, params: Params) -> None:
        """At least one of the limits, each a whole number within its bounds."""
        only(params, *_LIMITS)
        if not params:
            raise InvalidParamsError(f"at least one of {', '.join(_LIMITS)}")
        for name in params:
            low, high, _, _ = _LIMITS[name]
            number(params, name, low, high)
        if set(params) == {"min_classes"} and read(self._system, _PWQUALITY) is None:
            raise InvalidParamsError("min_classes: pwquality is not installed, and nothing else counts classes")

    def wanted(self, params: Params) -> FileContents:
        """Both files with the limits in them."""
        texts: dict[str, str | None] = {}
        for place, column, separator in ((_LOGIN_DEFS, 2, "\t"), (_PWQUALITY, 3, " = ")):
            text = read(self._system, place)
            keys = {str(_LIMITS[name][column]): value for name, value in params.items() if _LIMITS[name][column]}
            # A login.defs may be made; a pwquality.conf without pwquality would only look like protection.
            if not keys or (text is None and place == _PWQUALITY):
                continue
            for key, value in keys.items():
                text = set_option(text or "", key, str(value), separator)
            texts[place] = text
        return texts

    def state(self, params: Params) -> str:
        """Each limit as the files say it."""
        said = []
        for name in sorted(params):
            _, _, defs, quality = _LIMITS[name]
            for place, key in ((_LOGIN_DEFS, defs), (_PWQUALITY, quality)):
                text = read(self._system, place) if key else None
                if text is not None:
                    said.append(f"{key} {option(text, key)}")
        return ", ".join(said) or "not set"

    def would(self, params: Params, places: list[str]) -> str:
        """The limits and the files."""
        return f"set {', '.join(f'{key}={params[key]}' for key in sorted(params))} in {', '.join(places)}"
