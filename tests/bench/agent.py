"""What the agent costs a device: memory, processor, bytes on the wire.

`make bench-agent`, or `python -m tests.bench.agent [--idle SECONDS]`: `cordon-agent run` as a real process with all
collectors, over TLS with a client certificate to a mosquitto here, with a controller that accepts its reports.

- rss_mb: resident memory of the process at the end (its peak beside it), and once it has run its first command;
- scan_cpu_s: processor seconds of one full scan that knows nothing yet, the tools that it starts included;
- scan_again_cpu_s: of the next one in the running agent, with the process that it is;
- idle_cpu_percent: of one core, over the idle time, with the default heartbeat and without a scan in it;
- heartbeat_bytes, report_bytes: MQTT payloads.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import topics
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import public_key_text, sign
from tests.bench.link_rate import new_client
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto

DEVICE: Final = "bench-device"
PATIENCE: Final = 120.0  # seconds until the first report is there
IDLE: Final = 300.0  # seconds
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


class Ear:
    """A controller that accepts everything and remembers how large it was."""

    def __init__(self, port: int) -> None:
        self.sizes: dict[str, int] = {}
        self.reported = threading.Event()
        self._client = new_client("bench-controller")
        self._client.on_connect = lambda client, *_: client.subscribe(topics.ALL_UP, 1)
        self._client.on_message = self._heard
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _heard(self, _client: Any, _data: Any, message: Any) -> None:
        if not message.topic.endswith("/posture"):
            return
        report = json.loads(message.payload)
        self.sizes[report["kind"]] = len(message.payload)
        receipt = {"v": 1, "seq": report["seq"], "verdict": "accepted", "digest": report["digest"]}
        self._client.publish(topics.down(DEVICE, topics.DownChannel.RECEIPT), json.dumps(receipt), qos=1)
        if report["kind"] != "heartbeat":
            self.reported.set()

    def command(self, key: Ed25519PrivateKey) -> None:
        """Order a scan, and wait until the device has done it."""
        now = datetime.now(UTC)
        order = Command(
            command_id="bench",
            device_id=DEVICE,
            action="rescan",
            params={},
            issued_at=now,
            expires_at=now + timedelta(minutes=10),
            counter=1,
        )
        envelope = sign(order.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, key)
        self.reported.clear()
        self._client.publish(topics.down(DEVICE, topics.DownChannel.COMMAND), envelope, qos=1)
        if not self.reported.wait(PATIENCE):
            raise RuntimeError("no report came after the command")

    def close(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()


def write_config(folder: Path, certs: Certs, port: int, public_key: str) -> Path:
    """A configuration with defaults everywhere but in addresses."""
    certificate, key = certs.client(DEVICE)
    config = folder / "agent.toml"
    config.write_text(
        f'device_id = "{DEVICE}"\n[agent]\nstate_dir = "{folder / "state"}"\n'
        f'[mqtt]\nservers = ["mqtts://127.0.0.1:{port}"]\nca = "{certs.ca}"\n'
        f'certificate = "{certificate}"\nkey = "{key}"\n'
        f'[commands]\ncontroller_keys = ["{public_key}"]\nallow = ["rescan"]\n'
    )
    config.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    return config


def cpu_seconds(pid: int) -> float:
    """Processor time of the process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def memory_mb(pid: int, what: str) -> float:
    """`VmRSS` or `VmHWM` in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / _KIB


def scan_cpu() -> float:
    """One scan by `cordon-agent report`, less what starting it costs."""
    command = [sys.executable, "-m", "device_agent.main"]
    costs = []
    for argument in ("--version", "report"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, argument], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return costs[1] - costs[0]


def measure(idle: float) -> dict[str, float]:
    """Everything, once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certs = Certs(folder / "certs")
        with Mosquitto(tls=certs) as broker:
            ear, signer = Ear(broker.port), Ed25519PrivateKey.generate()
            config = write_config(folder, certs, broker.tls_port, public_key_text(signer.public_key()))
            command = [sys.executable, "-m", "device_agent.main", "run", "--config", str(config)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as agent:
                try:
                    if not ear.reported.wait(PATIENCE):
                        raise RuntimeError("no report came")
                    time.sleep(5.0)  # what follows the first report
                    before = cpu_seconds(agent.pid)
                    print(f"idle for {idle:g} s", file=sys.stderr)
                    time.sleep(idle)
                    used = cpu_seconds(agent.pid) - before
                    result = {
                        "rss_mb": memory_mb(agent.pid, "VmRSS"),
                        "peak_mb": memory_mb(agent.pid, "VmHWM"),
                        "idle_cpu_percent": 100 * used / idle,
                        "heartbeat_bytes": ear.sizes.get("heartbeat", 0),
                        "report_bytes": ear.sizes["full"],
                    }
                    before = cpu_seconds(agent.pid)
                    ear.command(signer)
                    time.sleep(5.0)
                    result["rss_after_command_mb"] = memory_mb(agent.pid, "VmRSS")
                    result["scan_again_cpu_s"] = cpu_seconds(agent.pid) - before
                finally:
                    agent.terminate()
            ear.close()
    return {**result, "scan_cpu_s": scan_cpu()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # The default scan comes every five minutes: a little less keeps it out.
    parser.add_argument("--idle", type=float, default=IDLE - 10, help="seconds to watch it idle")
    result = measure(parser.parse_args().idle)
    print(" ".join(f"{name}={value:.2f}".rstrip("0").rstrip(".") for name, value in result.items()))


if __name__ == "__main__":
    main()
