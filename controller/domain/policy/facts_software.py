"""Facts about software: operating system, updates, package sources, OpenSSL."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.sections.software import OpensslSection, OsSection, SourcesSection, UpdatesSection

_CLEAR_TEXT: Final = frozenset({"http", "ftp"})

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "os_id": ("string", "os", "distribution, as in os-release: debian, fedora, alpine, ..."),
    "os_version": ("string", "os", "version of the distribution, as in os-release"),
    "os_kernel": ("string", "os", "release of the running kernel"),
    "os_machine": ("string", "os", "processor architecture"),
    "updates_manager": ("string", "updates", "package manager"),
    "security_pending": ("int", "updates", "number of packages with a pending security update"),
    "oldest_security_days": ("int", "updates", "age in days of the oldest pending security update"),
    "reboot_required": ("bool", "updates", "whether an installed update needs a reboot"),
    "updates_pending": ("int", "updates", "number of packages with a pending update"),
    "pending_packages": ("list(string)", "updates", "names of the packages with a pending update"),
    "seen_security_days": ("int", "updates", "days since the device first saw the oldest pending security update"),
    "unattended_upgrades": ("bool", "updates", "whether updates are installed automatically"),
    "kernel_current": ("bool", "updates", "whether the running kernel is the newest installed one"),
    "installed_packages": ("list(string)", "updates", "names of all installed packages"),
    "source_urls": ("list(string)", "sources", "URLs of the enabled package sources"),
    "unsigned_sources": ("list(string)", "sources", "sources that are trusted without a signature"),
    "clear_text_sources": ("list(string)", "sources", "sources reached without encryption: http, ftp"),
    "weakened_sources": (
        "list(string)",
        "sources",
        "sources with a setting that weakens a check: trusted=yes, sslverify=0",
    ),
    "unpinned_sources": ("list(string)", "sources", "signed sources that accept any key of the system"),
    "openssl_version": ("string", "openssl", "upstream version of OpenSSL"),
    "openssl_package_name": ("string", "openssl", "package that OpenSSL comes from"),
    "openssl_package_version": ("string", "openssl", "version of that package; compare with older()"),
    "openssl_package_scheme": ("string", "openssl", "scheme of that version: deb, rpm, apk"),
    "openssl_library_version": ("string", "openssl", "version of the library that the openssl program uses"),
    "stale_openssl_processes": ("list(string)", "openssl", "running programs that use a replaced libssl or libcrypto"),
    "openssl_min_protocol": ("string", "openssl", "MinProtocol of openssl.cnf, or empty"),
    "openssl_cipher_string": ("string", "openssl", "CipherString of openssl.cnf, or empty"),
    "openssl_security_level": ("int", "openssl", "security level of openssl.cnf"),
    "openssl_legacy_provider": ("bool", "openssl", "whether openssl.cnf loads the provider of outdated algorithms"),
    "openssl_fips": ("bool", "openssl", "whether openssl.cnf loads the FIPS provider"),
    "openssl_unsafe_options": ("list(string)", "openssl", "options of openssl.cnf that weaken TLS"),
    "tls_errors": ("string", "openssl", "TLS errors in the journal of the last day: none, few, some or many"),
}


# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "os_id": ("id",),
    "os_version": ("version",),
    "os_kernel": ("kernel",),
    "os_machine": ("machine",),
    "updates_manager": ("manager",),
    "updates_pending": ("pending",),
    # Gaps name `pending`, which older controllers know.
    "pending_packages": ("pending_names", "pending"),
    "unattended_upgrades": ("unattended",),
    "installed_packages": ("installed",),
    **{
        name: (name,)
        for name in (
            *("security_pending", "oldest_security_days", "reboot_required", "seen_security_days", "kernel_current"),
            "tls_errors",
        )
    },
    **{name: ("entries",) for name, (_, section, _) in CATALOGUE.items() if section == "sources"},
    "openssl_version": ("version",),
    **dict.fromkeys(("openssl_package_name", "openssl_package_version", "openssl_package_scheme"), ("package",)),
    "openssl_library_version": ("library",),
    "stale_openssl_processes": ("stale_processes",),
    **{
        f"openssl_{field}": ("config", field)
        for field in (
            *("min_protocol", "cipher_string", "security_level", "legacy_provider", "fips", "unsafe_options"),
        )
    },
}


def _os(section: OsSection) -> dict[str, Any]:
    return {
        "os_id": section.id,
        "os_version": section.version,
        "os_kernel": section.kernel,
        "os_machine": section.machine,
    }


def _updates(section: UpdatesSection) -> dict[str, Any]:
    return {
        "updates_manager": section.manager,
        "security_pending": section.security_pending,
        "oldest_security_days": section.oldest_security_days,
        "reboot_required": section.reboot_required,
        "updates_pending": section.pending,
        "pending_packages": None if section.pending_names is None else list(section.pending_names),
        "seen_security_days": section.seen_security_days,
        "unattended_upgrades": section.unattended,
        "kernel_current": section.kernel_current,
        "installed_packages": (
            None if section.installed_count is None else [line.partition(" ")[0] for line in section.installed]
        ),
    }


def _sources(section: SourcesSection) -> dict[str, Any]:
    used = [entry for entry in section.entries if entry.enabled]
    return {
        "source_urls": sorted({entry.url for entry in used}),
        "unsigned_sources": sorted({entry.name for entry in used if entry.signed is False}),
        "clear_text_sources": sorted({entry.name for entry in used if entry.transport in _CLEAR_TEXT}),
        "weakened_sources": sorted({entry.name for entry in used if entry.flags}),
        "unpinned_sources": sorted({entry.name for entry in used if entry.signed is not False and not entry.key}),
    }


def _openssl(section: OpensslSection) -> dict[str, Any]:
    package, config = section.package, section.config
    return {
        "openssl_version": section.version,
        "openssl_package_name": package.name if package else None,
        "openssl_package_version": package.version if package else None,
        "openssl_package_scheme": package.scheme if package else None,
        "openssl_library_version": section.library or None,
        "stale_openssl_processes": None if section.stale_processes is None else list(section.stale_processes),
        "openssl_min_protocol": config.min_protocol if config else None,
        "openssl_cipher_string": config.cipher_string if config else None,
        "openssl_security_level": config.security_level if config else None,
        "openssl_legacy_provider": config.legacy_provider if config else None,
        "openssl_fips": config.fips if config else None,
        "openssl_unsafe_options": list(config.unsafe_options) if config else None,
        "tls_errors": section.tls_errors,
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (
    ("os", _os),
    ("updates", _updates),
    ("sources", _sources),
    ("openssl", _openssl),
)


def _updates_partial(section: UpdatesSection) -> dict[str, str]:
    found = {}
    missing = (section.installed_count or 0) - len(section.installed)
    if missing > 0:
        found["installed_packages"] = f"updates: {missing} more packages were not sent"
    if section.truncated and section.pending_names is not None:
        unnamed = (section.pending or 0) - len(section.pending_names)
        if unnamed > 0:
            found["pending_packages"] = f"updates: the names of {unnamed} pending updates were not sent"
    return found


def _sources_partial(section: SourcesSection) -> dict[str, str]:
    unknown = sum(entry.enabled and entry.signed is None for entry in section.entries)
    return {"unsigned_sources": f"sources: for {unknown} it is unknown whether they are signed"} if unknown else {}


def _openssl_partial(section: OpensslSection) -> dict[str, str]:
    if section.truncated or section.stale_hidden:
        reason = "some processes are not visible" if section.stale_hidden else f"{section.truncated} were not sent"
        return {"stale_openssl_processes": f"openssl: {reason}"}
    return {}


# List facts of which a section has only a part, and why.
PARTIAL: Final[Mapping[str, Callable[[Any], Mapping[str, str]]]] = {
    "updates": _updates_partial,
    "sources": _sources_partial,
    "openssl": _openssl_partial,
}
