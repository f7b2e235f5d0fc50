"""`password.policy`: length, character classes and ageing of passwords."""

from typing import Final

from device_agent.actions.base import InvalidParamsError, Params, int_param, reject_unknown_params
from device_agent.actions.edit import FileAction, FileContents, option, read, set_option

_LOGIN_DEFS: Final = "/etc/login.defs"
_PWQUALITY: Final = "/etc/security/pwquality.conf"
# Parameter: minimum, maximum, key in login.defs, key in pwquality.conf.
_LIMITS: Final = {
    "min_length": (6, 128, "PASS_MIN_LEN", "minlen"),
    "min_classes": (1, 4, "", "minclass"),
    "max_days": (1, 3650, "PASS_MAX_DAYS", ""),
    "min_days": (0, 365, "PASS_MIN_DAYS", ""),
    "warn_days": (0, 365, "PASS_WARN_AGE", ""),
}


class SetPasswordPolicy(FileAction):
    """`password.policy {min_length, min_classes, max_days, min_days, warn_days}`, for new passwords.

    The ageing of existing accounts does not change. Without pwquality its keys are left out.
    """

    def check(self, params: Params) -> None:
        """Accepts at least one limit, each a whole number within its bounds."""
        reject_unknown_params(params, *_LIMITS)
        if not params:
            raise InvalidParamsError(f"at least one of {', '.join(_LIMITS)}")
        for name in params:
            low, high, _, _ = _LIMITS[name]
            int_param(params, name, low, high)
        if set(params) == {"min_classes"} and read(self._system, _PWQUALITY) is None:
            raise InvalidParamsError("min_classes: needs pwquality, which is not installed")

    def desired_files(self, params: Params) -> FileContents:
        """Returns both files with the limits set."""
        texts: dict[str, str | None] = {}
        for path, column, separator in ((_LOGIN_DEFS, 2, "\t"), (_PWQUALITY, 3, " = ")):
            text = read(self._system, path)
            keys = {str(_LIMITS[name][column]): value for name, value in params.items() if _LIMITS[name][column]}
            # A missing login.defs is created; a pwquality.conf without pwquality would have no effect.
            if not keys or (text is None and path == _PWQUALITY):
                continue
            for key, value in keys.items():
                text = set_option(text or "", key, str(value), separator)
            texts[path] = text
        return texts

    def describe_state(self, params: Params) -> str:
        """Returns each limit as the files have it."""
        values = []
        for name in sorted(params):
            _, _, defs, quality = _LIMITS[name]
            for path, key in ((_LOGIN_DEFS, defs), (_PWQUALITY, quality)):
                text = read(self._system, path) if key else None
                if text is not None:
                    values.append(f"{key} {option(text, key)}")
        return ", ".join(values) or "not set"

    def describe_changes(self, params: Params, paths: list[str]) -> str:
        return f"set {', '.join(f'{key}={params[key]}' for key in sorted(params))} in {', '.join(paths)}"
