"""Has SELinux or AppArmor enforce what it only warns of."""

from collections.abc import Mapping, Sequence
from typing import Final

from device_agent.actions.base import ActionError, Params, only
from device_agent.actions.edit import FileAction, FileContents, option, read, set_option
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_CONFIG: Final = "/etc/selinux/config"
_ENFORCE: Final = "/sys/fs/selinux/enforce"
_PROFILES: Final = "/sys/kernel/security/apparmor/profiles"
_MAX_PROFILES: Final = 512


class EnforceMac(FileAction):
    """`mac.enforce`: SELinux from permissive to enforcing, or the AppArmor profiles that complain.

    SELinux that is disabled is left alone: it needs every file labelled and a restart, by a person.
    """

    def __init__(self, system: System, enforce_options: Sequence[str] = ()) -> None:
        """`enforce_options` go to aa-enforce, as for profiles in another folder."""
        super().__init__(system)
        self._enforce = ["aa-enforce", *enforce_options, "--"]

    def check(self, params: Params) -> None:
        """Takes no parameters."""
        only(params)

    def wanted(self, params: Params) -> FileContents:
        """SELinux's configuration with the mode; none for AppArmor, whose profiles are its configuration."""
        del params
        config = read(self._system, _CONFIG)
        if config is None:
            if self._complaining() is None:
                raise ActionError("neither SELinux nor AppArmor is here")
            return {}
        if option(config, "SELINUX") == "disabled":
            raise ActionError("SELinux is disabled: it needs every file labelled and a restart, by a person")
        return {_CONFIG: set_option(config, "SELINUX", "enforcing", "=")}

    def state(self, params: Params) -> str:
        """What the file says and what the kernel does."""
        del params
        config = read(self._system, _CONFIG)
        if config is None:
            complaining = self._complaining() or []
            return f"apparmor: {len(complaining)} profiles complain"
        enforce = read(self._system, _ENFORCE)
        runs = {"1": "enforcing", "0": "permissive"}.get((enforce or "").strip(), "not loaded")
        return f"selinux: {option(config, 'SELINUX')}, kernel {runs}"

    def would(self, params: Params, places: list[str]) -> str:
        """What is written, and what the kernel is told."""
        del params
        if not places and read(self._system, _CONFIG) is None:
            return "aa-enforce " + " ".join(self._profiles())
        return f"SELINUX=enforcing in {', '.join(places)}; setenforce 1" if places else "setenforce 1"

    def is_active(self, params: Params) -> bool:
        """Whether the kernel enforces."""
        del params
        if read(self._system, _CONFIG) is None:
            return not self._complaining()
        enforce = read(self._system, _ENFORCE)
        return enforce is None or enforce.strip() == "1"

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """The kernel first: what it refuses must not be waiting in a file for the next start."""
        try:
            if read(self._system, _CONFIG) is None:
                run([*self._enforce, *self._profiles()])
            elif not self.is_active(params):
                run(["setenforce", "1"])
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        super().apply(params, was)

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """The file and the kernel's mode as they were; profiles that were made to enforce stay so."""
        super().undo(params, was)
        if was.get("was", "").endswith("kernel permissive"):
            try:
                run(["setenforce", "0"])
            except ExecuteError as e:
                raise ActionError(str(e)) from e
        return "put back as it was"

    def _profiles(self) -> list[str]:
        """The profiles to name: a child (`parent//child`) lies in its parent's file and is changed with it."""
        return sorted({name.partition("//")[0] for name in self._complaining() or []})

    def _complaining(self) -> list[str] | None:
        text = read(self._system, _PROFILES)
        if text is None:
            return None
        names = [line.rpartition(" (")[0] for line in text.splitlines() if line.endswith("(complain)")]
        return [name for name in names if name and not name.startswith("-")][:_MAX_PROFILES]
