"""Puts the updater of this device together from its configuration."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

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


def updater_for(settings: Settings, system: System, clock: Clock, stopping: threading.Event) -> "Updater | None":
    """What puts updates in place; None where no repository is configured."""
    if settings.updates.url is None or settings.updates.root is None:
        return None
    return updater_of(settings, system, clock, boot_id(), stopping)


def updater_of(
    settings: Settings,
    system: System,
    clock: Clock,
    boot_id: str,
    stopping: threading.Event,
    *,
    step: Callable[[str], None] = lambda _name: None,
) -> Updater | None:
    """The updater; None where no repository is configured."""
    updates = settings.updates
    if updates.url is None or updates.root is None:
        return None
    folder = folder_of(settings)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    device = DeviceProfile(updates.device_class, updates.hardware, updates.ask_user, folder, system)
    source = RepositorySource(
        url=updates.url,
        root=updates.root,
        cache=folder / "tuf",
        tls=lambda: _tls(settings),
        min_bytes_per_second=float(updates.min_bytes_per_second),
    )
    trust = TufClient(source, clock, stopping)
    return Updater(
        device, trust, installers_of(settings, system, RebootControl(boot_id), step), clock, stopping, step=step
    )


def installers_of(
    settings: Settings, system: System, machine: RebootControl, step: Callable[[str], None]
) -> dict[Word, TargetInstaller]:
    """What this device can put in place."""
    folder = folder_of(settings)
    packages = (Word.APT, Word.DNF, Word.APK, Word.OPKG)
    installers: dict[Word, TargetInstaller] = {
        Word.FILESET: FileSetInstaller(folder / "sets", machine, step),
        Word.SCRIPT: ScriptInstaller(folder / "scripts", machine),
        Word.AGENT: AgentInstaller(AgentSlots(folder / "agent")),
        **{word: PackageInstaller(word, folder / "downloads", system, machine) for word in packages},
    }
    if settings.updates.image_hook is not None:
        installers[Word.HOOK] = ImageInstaller(settings.updates.image_hook, machine)
    return installers


def folder_of(settings: Settings) -> Path:
    """Where everything about updates is kept."""
    return settings.updates.folder or settings.agent.state_dir / "updates"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.updates.url is None or not settings.updates.url.startswith("https:"):
        return None
    ca = settings.updates.ca or settings.mqtt.ca
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    if settings.updates.use_certificate and settings.mqtt.certificate is not None:
        context.load_cert_chain(settings.mqtt.certificate, settings.mqtt.key, password=lambda: b"")
    return context
