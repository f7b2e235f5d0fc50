"""Facts about what is installed: system, updates, OpenSSL."""

from typing import Any, Final

from schemas.sections.software import OpensslSection, OsSection, UpdatesSection

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "os_id": ("string", "os", "distribution, as in os-release: debian, fedora, alpine, ..."),
    "os_version": ("string", "os", "version of the distribution, as in os-release"),
    "os_kernel": ("string", "os", "release of the running kernel"),
    "os_machine": ("string", "os", "processor architecture"),
    "updates_manager": ("string", "updates", "package manager"),
    "security_pending": ("int", "updates", "number of packages with a security update waiting"),
    "oldest_security_days": ("int", "updates", "age in days of the oldest waiting security update"),
    "reboot_required": ("bool", "updates", "whether an installed update waits for a reboot"),
    "openssl_version": ("string", "openssl", "upstream version of OpenSSL"),
    "openssl_package_name": ("string", "openssl", "package that OpenSSL comes from"),
    "openssl_package_version": ("string", "openssl", "version of that package; compare with older()"),
    "openssl_package_scheme": ("string", "openssl", "how that version is ordered: deb, rpm, apk"),
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
    }


def _openssl(section: OpensslSection) -> dict[str, Any]:
    package = section.package
    return {
        "openssl_version": section.version,
        "openssl_package_name": package.name if package else None,
        "openssl_package_version": package.version if package else None,
        "openssl_package_scheme": package.scheme if package else None,
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (("os", _os), ("updates", _updates), ("openssl", _openssl))
