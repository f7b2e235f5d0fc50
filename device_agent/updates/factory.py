"""Builds the updater of this device from its settings."""

import ssl
import threading
from collections.abc import Callable

from device_agent.host.clock import Clock
from device_agent.host.system import System, boot_id
from device_agent.settings import Settings
from device_agent.updates.installers.agent import AgentInstaller
from device_agent.updates.installers.base import RebootControl, TargetInstaller
from device_agent.updates.installers.fileset import FileSetInstaller
from device_agent.updates.installers.image import ImageInstaller
from device_agent.updates.installers.package import PackageInstaller
from device_agent.updates.installers.script import ScriptInstaller
from device_agent.updates.requirements import DeviceProfile
from device_agent.updates.slots import AgentSlots
from device_agent.updates.tuf_client import RepositorySource, TufClient
from device_agent.updates.updater import Updater
from schemas.updates import InstallerKind


def make_updater(
    settings: Settings,
    system: System,
    clock: Clock,
    stopping: threading.Event,
    request_restart: Callable[[], None],
    *,
    current_boot_id: str | None = None,
    crash_point: Callable[[str], None] = lambda _name: None,
) -> Updater | None:
    """Returns the updater; None where no repository is configured.

    Args:
        settings: of the device.
        system: the machine that is updated.
        clock: of the agent.
        stopping: set when the agent stops.
        request_restart: stops the agent so that the launcher starts it again.
        current_boot_id: default: the boot id of the kernel.
        crash_point: gets the name of each step before it is taken; for crash tests.
    """
    updates = settings.updates
    if updates.url is None or updates.root is None:
        return None
    folder = settings.updates_folder
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    device = DeviceProfile(updates.device_class, updates.hardware, updates.ask_user, folder, system)
    source = RepositorySource(
        url=updates.url,
        root=updates.root,
        cache=folder / "tuf",
        tls=lambda: _ssl_context(settings),
        min_bytes_per_second=float(updates.min_bytes_per_second),
    )
    machine = RebootControl(boot_id() if current_boot_id is None else current_boot_id)
    installers = _make_installers(settings, system, machine, request_restart, crash_point)
    return Updater(device, TufClient(source, clock, stopping), installers, clock, stopping, crash_point=crash_point)


def _make_installers(
    settings: Settings,
    system: System,
    machine: RebootControl,
    request_restart: Callable[[], None],
    crash_point: Callable[[str], None],
) -> dict[InstallerKind, TargetInstaller]:
    folder = settings.updates_folder
    packages = (InstallerKind.APT, InstallerKind.DNF, InstallerKind.APK, InstallerKind.OPKG)
    installers: dict[InstallerKind, TargetInstaller] = {
        InstallerKind.FILESET: FileSetInstaller(folder / "sets", machine, crash_point),
        InstallerKind.SCRIPT: ScriptInstaller(folder / "scripts", machine),
        InstallerKind.AGENT: AgentInstaller(AgentSlots(folder / "agent"), request_restart),
        **{kind: PackageInstaller(kind, folder / "downloads", system, machine) for kind in packages},
    }
    if settings.updates.image_hook is not None:
        installers[InstallerKind.HOOK] = ImageInstaller(settings.updates.image_hook, machine)
    return installers


def _ssl_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.updates.url is None or not settings.updates.url.startswith("https:"):
        return None
    ca = settings.updates.ca or settings.mqtt.ca
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    if settings.updates.use_certificate and settings.mqtt.certificate is not None:
        context.load_cert_chain(settings.mqtt.certificate, settings.mqtt.key, password=lambda: b"")
    return context
