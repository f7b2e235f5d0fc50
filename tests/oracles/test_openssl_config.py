"""The protocol versions that openssl.cnf leaves, as `read_policy` reads them, against the OpenSSL library itself."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from device_agent.collectors.crypto.openssl_config import read_policy
from device_agent.host.system import System
from tests.oracles.verdicts import Verdicts
from tests.support.root_folder import put

pytestmark = pytest.mark.oracles

SEEDS: Final = (1, 2026)
CASES: Final = 300  # of each seed
VERSIONS: Final = ("None", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3", "DTLSv1", "DTLSv1.2")
NAMES: Final = ("MinProtocol", "TLS.MinProtocol", "DTLS.MinProtocol", "minprotocol", "MaxProtocol", "TLS.MaxProtocol")
LISTS: Final = (
    "-ALL,TLSv1.2",
    "ALL,-SSLv3,-TLSv1",
    "-TLSv1",
    "TLSv1.2",
    "-ALL, TLSv1, TLSv1.2",
    "-ALL,+TLSv1.3",
    "ALL",
)
# Prints for each file named on standard input the oldest version that a context of TLS_method() still speaks.
ORACLE: Final = r"""
import ctypes, ctypes.util, os, sys
NAMES = {0x300: "SSLv3", 0x301: "TLSv1", 0x302: "TLSv1.1", 0x303: "TLSv1.2", 0x304: "TLSv1.3"}
OFF = {0x300: 1 << 25, 0x301: 1 << 26, 0x302: 1 << 28, 0x303: 1 << 27, 0x304: 1 << 29}
for path in sys.stdin.read().split():
    if os.fork():
        os.wait()
        continue
    os.environ["OPENSSL_CONF"] = path
    lib = ctypes.CDLL(ctypes.util.find_library("ssl"))
    lib.TLS_method.restype = lib.SSL_CTX_new.restype = ctypes.c_void_p
    lib.SSL_CTX_new.argtypes = [ctypes.c_void_p]
    lib.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    lib.SSL_CTX_ctrl.restype = ctypes.c_long
    lib.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
    lib.SSL_CTX_get_options.restype = ctypes.c_uint64
    context = lib.SSL_CTX_new(lib.TLS_method())
    if not context:
        print("refused", flush=True)
        os._exit(0)
    low = lib.SSL_CTX_ctrl(context, 130, 0, None) or 0x300
    high = lib.SSL_CTX_ctrl(context, 131, 0, None) or 0x304
    options = lib.SSL_CTX_get_options(context)
    left = [name for number, name in NAMES.items() if low <= number <= high and not options & OFF[number]]
    print(left[0] if left else "none", flush=True)
    os._exit(0)
"""


def text_of(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(0, 4)):
        if rng.random() < 0.3:
            lines.append(f"Protocol = {rng.choice(LISTS)}")
        else:
            blank = rng.choice([" = ", "=", "\t=  "])
            lines.append(f"{rng.choice(NAMES)}{blank}{rng.choice(VERSIONS)}{rng.choice(['', ' # TLSv1', '  '])}")
    sections = "openssl_conf = init\n[init]\nssl_conf = ssl\n[ ssl ]\nsystem_default = tls\n"
    if rng.random() < 0.2:
        sections = sections.replace("system_default = tls", "system_default = $name").replace(
            "[init]", "name=tls\n[init]"
        )
    return f"{sections}[tls]\n" + "".join(line + "\n" for line in lines)


def oldest(version: str) -> str:
    """Returns a version, `oldest` for the ones before TLS 1.1, of which a build may lack some."""
    return "oldest" if version in {"None", "SSLv3", "TLSv1"} else version


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reader_agrees_with_the_library(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("openssl.cnf", seed)
    texts = ["", *dict.fromkeys(text_of(rng) for _ in range(2 * CASES))]
    files = [put(tmp_path, f"/etc/ssl/{number}.cnf", text) for number, text in enumerate(texts)]
    argv, given = [sys.executable, "-S", "-c", ORACLE], "\n".join(map(str, files))
    answers = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=100, check=True).stdout.split()
    for text, file, answer in zip(texts, files, answers, strict=True):
        if answer in {"refused", "none"}:
            continue
        reading = read_policy(System(tmp_path), f"/etc/ssl/{file.name}")
        lowest = reading.value["min_protocol"] or answers[0]  # without a setting the default of the library holds
        shown = f"{text}library: {answer}, reader: {lowest}"
        verdicts.add(shown, {oldest(answer)}, {oldest(lowest)}, is_unknown=bool(reading.gaps))
    assert verdicts.cases >= CASES
    verdicts.check()
