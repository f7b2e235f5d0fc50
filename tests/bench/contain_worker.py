"""The load of the containment benchmark: a process that publishes healthy reports as many devices do.

`python -m tests.bench.contain_worker HOST:PORT[,HOST:PORT...]`; a JSON order a line on standard input, a JSON answer to
each: `{"do": "max", "seconds": S}` (as fast as receipts come back), `{"do": "rate", "rate": R}` (R reports a second
until `stop`, whether or not receipts come), `{"do": "stop"}`. Answers hold `sent` and `receipted`, both a second.
"""

import json
import sys
import threading
import time
from typing import Any, Final

from paho.mqtt import client as paho

from schemas.topics import DownChannel, UpChannel, down, up
from tests.bench.fleet import Reports, device_id
from tests.bench.link_rate import new_client

DEVICES: Final = 2000  # so that none of them exceeds its share, however fast all together are
CONNECTIONS: Final = 4
WINDOW: Final = 64  # reports without a receipt on each connection, at full speed
TICK: Final = 0.005  # seconds between bursts at a fixed rate
_WAIT_SECONDS: Final = 30.0


class Speaker:
    """One connection that speaks for a part of the devices."""

    def __init__(self, address: tuple[str, int], number: int) -> None:
        """Connect, and hear the receipts of every device it speaks for."""
        self.receipted = 0
        self.sent = 0
        self._reports = Reports()
        self._devices = range(number, DEVICES, CONNECTIONS)
        self._seq = int(time.time())
        self._room = threading.Semaphore(WINDOW)
        self._is_there = threading.Event()
        self._client = new_client(f"bench-load-{number}")
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: self._is_there.set()
        self._client.connect(*address)
        self._client.loop_start()
        for first in range(0, len(self._devices), 100):
            self._is_there.clear()
            names = [device_id(device) for device in self._devices[first : first + 100]]
            self._client.subscribe([(down(name, DownChannel.RECEIPT), 1) for name in names])
            if not self._is_there.wait(_WAIT_SECONDS):
                raise RuntimeError("the broker does not answer a subscription")

    def say(self) -> None:
        """Publish one report."""
        turn, index = divmod(self.sent, len(self._devices))
        device = self._devices[index]
        self.sent += 1
        self._client.publish(
            up(device_id(device), UpChannel.POSTURE), self._reports.full(device, self._seq + turn), qos=1
        )

    def say_for(self, seconds: float) -> None:
        """Publish as fast as receipts allow."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._room.acquire(timeout=TICK):
                self.say()

    def _heard(self, _client: paho.Client, _data: Any, _message: paho.MQTTMessage) -> None:
        self.receipted += 1
        self._room.release()


class Crowd:
    """All connections together."""

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        """Connect them, spread over the nodes."""
        self._speakers = [Speaker(addresses[number % len(addresses)], number) for number in range(CONNECTIONS)]
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = (0.0, 0, 0)

    def at_most(self, seconds: float) -> dict[str, float]:
        """Reports a second that were sent and receipted at full speed."""
        self._mark()
        threads = [threading.Thread(target=speaker.say_for, args=(seconds,)) for speaker in self._speakers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._since()

    def begin(self, rate: float) -> dict[str, float]:
        """Publish at a fixed rate from now on."""
        self._mark()
        self._is_stopping.clear()
        self._thread = threading.Thread(target=self._flow, args=(rate,))
        self._thread.start()
        return {"rate": rate}

    def stop(self) -> dict[str, float]:
        """End it."""
        self._is_stopping.set()
        if self._thread is not None:
            self._thread.join()
        return self._since()

    def _flow(self, rate: float) -> None:
        begun, sent = time.monotonic(), 0
        while not self._is_stopping.wait(TICK):
            due = int((time.monotonic() - begun) * rate)
            for number in range(sent, due):
                self._speakers[number % len(self._speakers)].say()
            sent = due

    def _counts(self) -> tuple[int, int]:
        return sum(one.sent for one in self._speakers), sum(one.receipted for one in self._speakers)

    def _mark(self) -> None:
        self._begun = (time.monotonic(), *self._counts())

    def _since(self) -> dict[str, float]:
        at, sent, receipted = self._begun
        seconds = time.monotonic() - at
        now_sent, now_receipted = self._counts()
        return {"sent": (now_sent - sent) / seconds, "receipted": (now_receipted - receipted) / seconds}


def main() -> None:
    """Obey until the end of standard input."""
    addresses = [(host, int(port)) for host, _, port in (one.rpartition(":") for one in sys.argv[1].split(","))]
    crowd = Crowd(addresses)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "max":
                answer = crowd.at_most(float(order["seconds"]))
            case "rate":
                answer = crowd.begin(float(order["rate"]))
            case _:
                answer = crowd.stop()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
