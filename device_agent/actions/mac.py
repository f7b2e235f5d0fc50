"""`mac.enforce`: SELinux or AppArmor enforce what they only warn of."""

from collections.abc import Mapping, Sequence
from typing import Final

from device_agent.actions.base import ActionError, Params, reject_unknown_params
from device_agent.actions.edit import FileAction, FileContents, option, read, set_option
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_CONFIG: Final = "/etc/selinux/config"
_ENFORCE: Final = "/sys/fs/selinux/enforce"
_PROFILES: Final = "/sys/kernel/security/apparmor/profiles"
_MAX_PROFILES: Final = 512


class EnforceMac(FileAction):
    """`mac.enforce`: switches SELinux, or the AppArmor profiles in complain mode, to enforcing.

    Disabled SELinux is not changed: it needs every file labelled, and a restart.
    """

    def __init__(self, system: System, enforce_options: Sequence[str] = ()) -> None:
        """`enforce_options` are options of aa-enforce, such as another folder of profiles."""
        super().__init__(system)
        self._enforce = ["aa-enforce", *enforce_options, "--"]

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def desired_files(self, params: Params) -> FileContents:
        """Returns the configuration of SELinux; none for AppArmor, whose profiles are its configuration."""
        del params
        config = read(self._system, _CONFIG)
        if config is None:
            if self._complain_mode_profiles() is None:
                raise ActionError("neither SELinux nor AppArmor is here")
            return {}
        if option(config, "SELINUX") == "disabled":
            raise ActionError("SELinux is disabled: it needs every file labelled and a restart, by a person")
        return {_CONFIG: set_option(config, "SELINUX", "enforcing", "=")}

    def describe_state(self, params: Params) -> str:
        """Returns the mode in the configuration and in the kernel."""
        del params
        config = read(self._system, _CONFIG)
        if config is None:
            complaining = self._complain_mode_profiles() or []
            return f"apparmor: {len(complaining)} profiles complain"
        enforce = read(self._system, _ENFORCE)
        runs = {"1": "enforcing", "0": "permissive"}.get((enforce or "").strip(), "not loaded")
        return f"selinux: {option(config, 'SELINUX')}, kernel {runs}"

    def describe_changes(self, params: Params, paths: list[str]) -> str:
        """Returns the file change and the command for the kernel."""
        del params
        if not paths and read(self._system, _CONFIG) is None:
            return "aa-enforce " + " ".join(self._profiles())
        return f"SELINUX=enforcing in {', '.join(paths)}; setenforce 1" if paths else "setenforce 1"

    def is_active(self, params: Params) -> bool:
        """Returns whether the kernel enforces."""
        del params
        if read(self._system, _CONFIG) is None:
            return not self._complain_mode_profiles()
        enforce = read(self._system, _ENFORCE)
        return enforce is None or enforce.strip() == "1"

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Changes the kernel first: a mode that it refuses must not take effect at the next boot."""
        try:
            if read(self._system, _CONFIG) is None:
                run([*self._enforce, *self._profiles()])
            elif not self.is_active(params):
                run(["setenforce", "1"])
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        super().apply(params, before)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores the file and the kernel's mode; AppArmor profiles stay enforcing."""
        super().undo(params, before)
        if before.get("was", "").endswith("kernel permissive"):
            try:
                run(["setenforce", "0"])
            except ExecuteError as e:
                raise ActionError(str(e)) from e
        return "put back as it was"

    def _profiles(self) -> list[str]:
        """Returns the profiles to name; a child (`parent//child`) is in the file of its parent and changes with it."""
        return sorted({name.partition("//")[0] for name in self._complain_mode_profiles() or []})

    def _complain_mode_profiles(self) -> list[str] | None:
        text = read(self._system, _PROFILES)
        if text is None:
            return None
        names = [line.rpartition(" (")[0] for line in text.splitlines() if line.endswith("(complain)")]
        return [name for name in names if name and not name.startswith("-")][:_MAX_PROFILES]
