"""The names of the sections that this agent finds: known without loading what finds them."""

from typing import Final

SECTIONS: Final = (
    *(
        "os",
        "updates",
        "sources",
        "openssl",
        "keys",
        "certificates",
        "sockets",
        "services",
        "firewall",
        "access",
        "ssh",
    ),
    *("disk", "mac", "logging", "lynis", "openscap", "intrusion", "integrity", "software"),
)
