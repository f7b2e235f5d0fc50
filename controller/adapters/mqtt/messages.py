"""The controller's MQTT session with the broker: reconnects, receives and publishes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NoReturn

from controller.adapters.mqtt.buffered_socket import HeldTlsContext
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

STABLE_SECONDS: Final = 10.0  # a connection that lasted so long resets the back-off


class ReconnectBackoff:
    """Counts failed connections in a row and draws the wait before the next one."""

    def __init__(self, backoff: Backoff, refused: float, rand: Callable[[], float]) -> None:
        """`refused`: about how long to wait, in seconds, after the broker refused; `rand` draws from [0, 1)."""
        self._backoff = backoff
        self._refused = refused
        self._rand = rand
        self._failures = 0

    def reset_after(self, seconds: float) -> None:
        """Resets the back-off if the connection that has ended lasted long enough."""
        if seconds >= STABLE_SECONDS:
            self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether an attempt failed since the last stable connection."""
        return self._failures > 0

    def next(self, kind: DisconnectKind) -> float:
        """Returns the seconds to wait after this end of a connection."""
        if kind in {DisconnectKind.REFUSED, DisconnectKind.TAKEN_OVER}:
            return self._refused * (0.5 + 0.5 * self._rand())
        seconds = self._backoff.delay(self._failures, self._rand())
        self._failures += 1
        return seconds


# How long a server that accepted only 3.1.1 is not tried with MQTT 5: it may have been slow, or gets upgraded.
FALLBACK_KEPT_SECONDS: Final = 3600.0
_DIAL_THREADS: Final = 4  # an attempt whose name lookup hangs holds a thread until the resolver times out
_WORKED_ONCE: Final = {DisconnectKind.DROPPED, DisconnectKind.TAKEN_OVER}


class PahoMessages:
    """`controller.ports.messages.Messages` with paho-mqtt under asyncio (its own loop or uvloop)."""

    def __init__(
        self,
        options: MqttOptions,
        *,
        rand: Callable[[], float],
        log: Callable[[str, Mapping[str, object]], None],
        certificate_problem: Callable[[], str] = str,
    ) -> None:
        """`rand`: draws from [0, 1) for the back-off; `log`: receives events of the connection.

        `certificate_problem`: what is wrong with this client's certificate now, if anything; added to the reason of
        a failed connection over TLS, where the server may not say it.
        """
        self._options = options
        self._tls = HeldTlsContext(options)
        self._log = log
        self._certificate_problem = certificate_problem
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
        """The state of the connection; `since` is the loop's time in seconds."""
        return self._state

    async def run(self) -> NoReturn:
        """Stays connected until cancelled, then disconnects within a bounded time."""
        executor = ThreadPoolExecutor(_DIAL_THREADS, thread_name_prefix="mqtt-connect")
        try:
            await self._keep_connected(executor)
        finally:
            self._outbox.detach("the link was stopped")
            self._update(connected=False, detail="stopped")
            executor.shutdown(wait=False, cancel_futures=True)

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        """Waits for a message, then returns what has arrived, in order, at most `most`."""
        messages = await self._inbox.take(most)
        if self._connection is not None:
            self._connection.resume()
        return messages

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Sends the PUBACKs in the order of arrival; tickets of an earlier connection are ignored."""
        packets = self._inbox.settle(messages)
        if self._connection is not None:
            self._connection.acknowledge(packets)

    def publish(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Queues a QoS 1 message; False, without queueing, when the queue is full or the connection is down.

        A queued message survives a reconnect, and may then be delivered twice.
        """
        return self._offer(OutgoingMessage(topic, payload), expiry_seconds)

    def publish_nowait(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Sends at QoS 0, at most once; False, without sending, when the connection is down or too slow."""
        return self._connection is not None and self._connection.publish_nowait(topic, payload, expiry_seconds)

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        """Publishes at QoS 1 and waits for the broker's PUBACK.

        Raises:
            NoSubscriberError: the broker accepted it and has no subscriber (MQTT 5 only).
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

    def _offer(self, message: OutgoingMessage, expiry_seconds: int | None) -> bool:
        now = asyncio.get_running_loop().time()
        if expiry_seconds is not None:
            message.deadline = now + expiry_seconds
        # Messages of a kept session arrive before the SUBACK; their receipts are queued until then.
        return self._outbox.enqueue(message, now, opening=self._connection is not None)

    async def _keep_connected(self, executor: Executor) -> NoReturn:
        at = 0
        failed_in_a_row = 0
        while True:
            server = self._servers[at % len(self._servers)]
            end = await self._serve(server, executor)
            if end.kind in _WORKED_ONCE:
                failed_in_a_row = 0
                if self._backoff.is_failing:
                    at += 1  # try another node than one that drops the connection repeatedly
            else:
                at += 1
                failed_in_a_row += 1
                if failed_in_a_row % len(self._servers):
                    continue  # wait only after every address was tried
            seconds = self._backoff.next(end.kind)
            self._log("mqtt_waiting", {"seconds": round(seconds, 3), "after": str(end.kind)})
            await asyncio.sleep(seconds)

    async def _serve(self, server: BrokerAddress, executor: Executor) -> Disconnection:
        """Uses one server until the connection ends, with MQTT 5 or, where `protocol` allows it, with 3.1.1."""
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
            server,
            version,
            options=self._options,
            tls=self._tls,
            inbox=self._inbox,
            outbox=self._outbox,
            log=self._log,
        )
        if not self._state.server:
            self._update(connected=False, server=str(server), protocol=version, detail="connecting")
        try:
            # Messages of a kept session arrive before the SUBACK; `receive` and `acknowledge` work from then on.
            self._connection = connection
            opening = loop.time()
            present = await connection.open(executor)
            began = loop.time()
            self._outbox.attach(connection.send, connection.window, began)
            self._update(connected=True, server=str(server), protocol=version, detail="connected")
            if present:
                self._state = replace(self._state, resumed_at=opening)
            self._log("mqtt_connected", {"server": str(server), "protocol": version, "session_present": present})
            end = await asyncio.shield(connection.ended)
            self._backoff.reset_after(loop.time() - began)
        except ConnectionClosedError as error:
            problem = self._certificate_problem() if server.tls else ""
            end = replace(error.end, detail=f"{error.end.detail}; {problem}") if problem else error.end
        finally:
            self._connection = None
            await connection.close()
        self._outbox.detach(end.detail)
        self._update(connected=False, server=str(server), protocol=version, detail=end.detail)
        fields = {"server": str(server), "protocol": version, "reason": end.detail, "reason_code": end.reason_code}
        self._log("mqtt_lost" if end.kind in _WORKED_ONCE else "mqtt_failed", fields)
        return end

    def _update(self, *, connected: bool, detail: str, server: str | None = None, protocol: str | None = None) -> None:
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
