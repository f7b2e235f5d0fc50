"""Puts the updater of this device together from its configuration."""

import ssl
import threading
from collections.abc import Callable

from device_agent.host.boot import boot_id
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.settings import Settings
from device_agent.updates.installers.agent import AgentInstaller
from device_agent.updates.installers.base import RebootControl, TargetInstaller
from device_agent.updates.installers.fileset import FileSetInstaller
from device_agent.updates.installers.image import ImageInstaller
from device_agent.updates.installers.package import PackageInstaller
from device_agent.updates.installers.script import ScriptInstaller
from device_agent.updates.slots import AgentSlots
from device_agent.updates.tuf_client import RepositorySource, TufClient
from device_agent.updates.updater import DeviceProfile, Updater
from schemas.updates import InstallerKind as Word


def make_updater(
    settings: Settings,
    system: System,
    clock: Clock,
    stopping: threading.Event,
    request_restart: Callable[[], None],
    *,
    restart_id: str | None = None,
    step: Callable[[str], None] = lambda _name: None,
) -> Updater | None:
    """Returns the updater; None where no repository is configured.

    Args:
        settings: of the device.
        system: the machine that is updated.
        clock: of the agent.
        stopping: set when the agent stops.
        request_restart: stops the agent so that the launcher starts it again.
        restart_id: differs after each boot; default: the boot id of the kernel.
        step: called with the name of each step before it is taken.
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
    machine = RebootControl(boot_id() if restart_id is None else restart_id)
    installers = _make_installers(settings, system, machine, request_restart, step)
    return Updater(device, TufClient(source, clock, stopping), installers, clock, stopping, step=step)


def _make_installers(
    settings: Settings,
    system: System,
    machine: RebootControl,
    request_restart: Callable[[], None],
    step: Callable[[str], None],
) -> dict[Word, TargetInstaller]:
    folder = settings.updates_folder
    packages = (Word.APT, Word.DNF, Word.APK, Word.OPKG)
    installers: dict[Word, TargetInstaller] = {
        Word.FILESET: FileSetInstaller(folder / "sets", machine, step),
        Word.SCRIPT: ScriptInstaller(folder / "scripts", machine),
        Word.AGENT: AgentInstaller(AgentSlots(folder / "agent"), request_restart),
        **{word: PackageInstaller(word, folder / "downloads", system, machine) for word in packages},
    }
    if settings.updates.image_hook is not None:
        installers[Word.HOOK] = ImageInstaller(settings.updates.image_hook, machine)
    return installers


def _ssl_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.updates.url is None or not settings.updates.url.startswith("https:"):
        return None
    ca = settings.updates.ca or settings.mqtt.ca
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    if settings.updates.use_certificate and settings.mqtt.certificate is not None:
        context.load_cert_chain(settings.mqtt.certificate, settings.mqtt.key, password=lambda: b"")
    return context
