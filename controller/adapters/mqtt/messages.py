"""The controller's link to the broker: one subscription that survives restarts, and messages out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NoReturn

from controller.adapters.mqtt.backoff import ReconnectBackoff
from controller.adapters.mqtt.connection import ConnectionClosedError, MqttConnection
from controller.adapters.mqtt.inbox import Inbox
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.outbox import OutgoingMessage, PublishQueue
from controller.adapters.mqtt.paho_client import MqttVersion
from controller.adapters.mqtt.reason_codes import Disconnection, DisconnectKind
from controller.ports.errors import MessagesError
from controller.ports.messages import ConnectionState, IncomingMessage
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress

# A server that once answered only 3.1.1 is asked for MQTT 5 again after this long: it may have been slow, or upgraded.
FALLBACK_KEPT_SECONDS: Final = 3600.0
# Attempts whose name lookup hangs hold a thread until the resolver gives up.
_DIAL_THREADS: Final = 4
_WORKED_ONCE: Final = {DisconnectKind.DROPPED, DisconnectKind.TAKEN_OVER}


class PahoMessages:
    """`controller.ports.messages.Messages` with paho-mqtt under asyncio (its own loop or uvloop)."""

    def __init__(
        self,
        options: MqttOptions,
        *,
        rand: Callable[[], float],
        log: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        """Take the settings, randomness in [0, 1) for the back-off, and where events of the link are told."""
        self._options = options
        self._log = log
        self._servers = tuple(BrokerAddress.parse(url) for url in options.servers)
        backoff = Backoff(options.backoff_floor_seconds, options.backoff_ceiling_seconds)
        self._backoff = ReconnectBackoff(backoff, options.refused_wait_seconds, rand)
        self._inbox = Inbox(options.receive_maximum, options.max_waiting_bytes)
        self._outbox = PublishQueue(options.max_queued)
        self._connection: MqttConnection | None = None
        self._fallback_until: dict[BrokerAddress, float] = {}
        self._state = ConnectionState(connected=False, server="", protocol="", since=0.0, detail="not started")

    @property
    def state(self) -> ConnectionState:
        """The link as it is now; `since` is the loop's time in seconds."""
        return self._state

    async def run(self) -> NoReturn:
        """Connect, stay connected, until cancelled; then disconnect, within a bounded time."""
        executor = ThreadPoolExecutor(_DIAL_THREADS, thread_name_prefix="mqtt-connect")
        try:
            await self._keep_connected(executor)
        finally:
            self._outbox.detach("the link was stopped")
            self._tell(connected=False, detail="stopped")
            executor.shutdown(wait=False, cancel_futures=True)

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        """Wait for at least one message, then take what has arrived, in order, at most `most`."""
        messages = await self._inbox.take(most)
        if self._connection is not None:
            self._connection.resume()
        return messages

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Send the PUBACKs, in the order received; tickets of an earlier connection are void and ignored."""
        packets = self._inbox.settle(messages)
        if self._connection is not None:
            self._connection.acknowledge(packets)

    def publish(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Queue a QoS 1 message; `False` when the bounded queue is full or the link is down: nothing was queued.

        What was queued outlives a reconnect, and may then be delivered twice.
        """
        return self._offer(OutgoingMessage(topic, payload), expiry_seconds)

    def tell(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Send at QoS 0, at most once; `False` when the link is down or clogged: nothing was sent."""
        return self._connection is not None and self._connection.tell(topic, payload, expiry_seconds)

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        """Publish at QoS 1 and wait for the broker's PUBACK.

        Raises:
            NoSubscriberError: the broker took it and nobody is subscribed (MQTT 5 only).
            MessagesError: not connected, queue full, refused (MQTT 5 reason >= 128), or no PUBACK in time.
        """
        if not self._outbox.attached:
            raise MessagesError(f"not connected to the broker: {self._state.detail}")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._offer(OutgoingMessage(topic, payload, waiter=waiter), expiry_seconds):
            raise MessagesError(f"{self._options.max_queued} messages wait to be sent already")
        limit = self._options.confirm_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await waiter
        except TimeoutError as error:
            raise MessagesError(f"no PUBACK within {limit:g} s") from error

    def _offer(self, letter: OutgoingMessage, expiry_seconds: int | None) -> bool:
        now = asyncio.get_running_loop().time()
        if expiry_seconds is not None:
            letter.deadline = now + expiry_seconds
        # A kept session's messages come before the SUBACK: their receipts wait for the moment it is there.
        return self._outbox.offer(letter, now, opening=self._connection is not None)

    async def _keep_connected(self, executor: Executor) -> NoReturn:
        at = 0
        failed_in_a_row = 0
        while True:
            server = self._servers[at % len(self._servers)]
            end = await self._serve(server, executor)
            if end.kind in _WORKED_ONCE:
                failed_in_a_row = 0
                if self._backoff.in_trouble:
                    at += 1  # a node that drops us again and again is left for another
            else:
                at += 1
                failed_in_a_row += 1
                if failed_in_a_row % len(self._servers):
                    continue  # the next address may answer right now; waiting comes after all were tried
            seconds = self._backoff.next(end.kind)
            self._log("mqtt_waiting", {"seconds": round(seconds, 3), "after": str(end.kind)})
            await asyncio.sleep(seconds)

    async def _serve(self, server: BrokerAddress, executor: Executor) -> Disconnection:
        """Use one server until the connection ends, in MQTT 5 or, where that is allowed and needed, in 3.1.1."""
        loop = asyncio.get_running_loop()
        chosen = self._options.protocol
        fallen_back = self._fallback_until.get(server, 0.0) > loop.time()
        first: MqttVersion = ("3.1.1" if fallen_back else "5") if chosen == "auto" else chosen
        end = await self._use(server, first, executor)
        if chosen == "auto" and first == "5" and end.kind in {DisconnectKind.SILENT, DisconnectKind.UNSUPPORTED}:
            self._log("mqtt_falling_back", {"server": str(server), "protocol": "3.1.1", "reason": end.detail})
            end = await self._use(server, "3.1.1", executor)
            if end.kind in _WORKED_ONCE:
                self._fallback_until[server] = loop.time() + FALLBACK_KEPT_SECONDS
        return end

    async def _use(self, server: BrokerAddress, version: MqttVersion, executor: Executor) -> Disconnection:
        loop = asyncio.get_running_loop()
        connection = MqttConnection(
            server, version, options=self._options, inbox=self._inbox, outbox=self._outbox, log=self._log
        )
        if not self._state.server:
            self._tell(connected=False, server=str(server), protocol=version, detail="connecting")
        try:
            # Messages of a kept session arrive before the SUBACK; `receive` and `acknowledge` work from then on.
            self._connection = connection
            opening = loop.time()
            present = await connection.open(executor)
            began = loop.time()
            self._outbox.attach(connection.send, connection.window, began)
            self._tell(connected=True, server=str(server), protocol=version, detail="connected")
            if present:
                self._state = replace(self._state, resumed_at=opening)
            self._log("mqtt_connected", {"server": str(server), "protocol": version, "session_present": present})
            end = await asyncio.shield(connection.ended)
            self._backoff.lived(loop.time() - began)
        except ConnectionClosedError as error:
            end = error.end
        finally:
            self._connection = None
            await connection.close()
        self._outbox.detach(end.detail)
        self._tell(connected=False, server=str(server), protocol=version, detail=end.detail)
        fields = {"server": str(server), "protocol": version, "reason": end.detail, "reason_code": end.reason_code}
        self._log("mqtt_lost" if end.kind in _WORKED_ONCE else "mqtt_failed", fields)
        return end

    def _tell(self, *, connected: bool, detail: str, server: str | None = None, protocol: str | None = None) -> None:
        before = self._state
        since = before.since
        if connected != before.connected or not before.since:
            since = asyncio.get_running_loop().time()
        self._state = ConnectionState(
            connected=connected,
            server=before.server if server is None else server,
            protocol=before.protocol if protocol is None else protocol,
            since=since,
            detail=detail,
            resumed_at=before.resumed_at,
        )
