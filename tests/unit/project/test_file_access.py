"""Each place that opens, creates or changes files by itself: with `safe_files`, or with a reason beside it."""

import re
from typing import Final

from tests.support.project_tree import PRODUCT, name_of, python_files

_CALLS: Final = re.compile(
    r"os\.open\(|O_CREAT|\.chmod\(|chown\(|mkstemp|write_bytes\(|write_text\(|\.open\((?:\"|errors|encoding|buffering)"
)
_OWN: Final = "this program's own folder, which others may not write to"
_OPERATOR: Final = "read from a path that the operator gave to this program: a pipe is as good as a file"
_SYSTEM: Final = "read from a file in a folder of root's"
_PLACES: Final = {
    "schemas/safe_files.py": "the module that others use",
    "schemas/export.py": "a tool of developers",
    "schemas/output_streams.py": "/dev/null",
    "controller/adapters/files.py": "opens a folder to sync it",
    "controller/adapters/mqtt/buffered_socket.py": _OPERATOR,
    "controller/adapters/policies/loader.py": "follows the links of mounted configuration; no pipes",
    "controller/adapters/revocation_marks.py": "the service's own file, without following links",
    "controller/adapters/sqlite/restore.py": "new files, with the rights of the folder's owner",
    "controller/adapters/sqlite/schema.py": "a new file, with the rights of the folder's owner",
    "controller/adapters/tuf_repository/publishing.py": _OPERATOR,
    "controller/adapters/x509/own_certificates.py": _OPERATOR,
    "controller/app/offline.py": _OPERATOR,
    "controller/cli/access.py": _OPERATOR,
    "controller/cli/config_files.py": "a draft with a random name",
    "controller/cli/knowledge.py": _OPERATOR,
    "controller/cli/policy/preview.py": _OPERATOR,
    "controller/cli/rollouts.py": _OPERATOR,
    "controller/main.py": "/dev/null",
    "device_agent/actions/account.py": "/etc/.pwd.lock, in a folder of root's",
    "device_agent/actions/key.py": "descriptors that safe_files opened",
    "device_agent/cli/output_streams.py": "/dev/null",
    "device_agent/collectors/crypto/openssl.py": "/proc",
    "device_agent/collectors/software/inventory.py": _SYSTEM,
    "device_agent/collectors/software/updates.py": _OWN,
    "device_agent/collectors/system/sockets.py": "/proc",
    "device_agent/collectors/tools/file_integrity.py": _OWN,
    "device_agent/collectors/tools/file_integrity_scan.py": "without following links, and without blocking",
    "device_agent/collectors/tools/tool_runner.py": _OWN,
    "device_agent/commands/journal.py": _OWN,
    "device_agent/host/certificate.py": _OPERATOR,
    "device_agent/host/files.py": "opens own files and folders to sync them",
    "device_agent/host/image_packages.py": "its own new copy of a database",
    "device_agent/host/secrets.py": _OPERATOR,
    "device_agent/host/image_path.py": "looks without access or lists, component by component, without following links",
    "device_agent/intrusion/watch.py": _OWN,
    "device_agent/keyring.py": _OWN,
    "device_agent/reporting/signer.py": _OPERATOR,
    "device_agent/updates/consent.py": _OWN,
    "device_agent/updates/download.py": _OWN,
    "device_agent/updates/installers/fileset.py": _OWN,
    "device_agent/updates/installers/unpacking.py": "through descriptors of its own new folder",
    "device_agent/updates/tuf_client.py": _OWN,
}
_UNPRIVILEGED: Final = ("controller/demo/", "controller/standin/", "device_agent/simulator/")


def test_files_are_opened_and_changed_where_a_reason_is_given() -> None:
    found = {
        name_of(path)
        for path in python_files(*PRODUCT)
        if not name_of(path).startswith(_UNPRIVILEGED) and _CALLS.search(path.read_text())
    }
    assert found == _PLACES.keys(), "use safe_files, or give a reason here"
