"""An HTTP/1.1 connection to the API; handlers are synchronous and fast."""

import asyncio

import h11

from controller.standin.api.web import HttpApi, PendingResponse, Response
from controller.standin.options import HTTP_IDLE_SECONDS, MAX_HTTP_BODY_BYTES, MAX_HTTP_CONNECTIONS

_SERVER = "cordon-standin (not EMQX)"


class HttpConnection(asyncio.Protocol):
    """Parses requests with h11 and writes the responses in order."""

    def __init__(self, api: HttpApi, live: set["HttpConnection"]) -> None:
        self._api = api
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._hung = False
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit
        if len(self._live) >= MAX_HTTP_CONNECTIONS:
            self.abort()
            return
        self._live.add(self)
        self._restart_timer()
        if self._api.context.node.frozen:
            self.hang()

    def hang(self) -> None:
        """Takes nothing until `resume`."""
        self._hung = True

    def resume(self) -> None:
        """Goes on where it was."""
        self._hung = False
        held, self._held = bytes(self._held), bytearray()
        if held:
            self.data_received(held)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._live.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Closes the socket immediately."""
        if self._transport is not None:
            self._transport.abort()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(HTTP_IDLE_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._hung:
            self._held += data
            if len(self._held) > MAX_HTTP_BODY_BYTES:
                self.abort()
            return
        self._restart_timer()
        try:
            self._http.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError:
            self._refuse(Response(400))

    def _advance(self) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_HTTP_BODY_BYTES:
                    self._refuse(Response(413))
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
                if self._http.our_state is not h11.IDLE:
                    return
            else:
                return

    def _answer(self) -> None:
        request = self._request
        assert request is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        response = self._api.answer(
            request.method.decode("ascii"), request.target.decode("latin-1"), headers, bytes(self._body)
        )
        if isinstance(response, PendingResponse):
            if self._timer is not None:
                self._timer.cancel()
            self._api.context.registry.state.waiting.append(lambda: self._answer_late(response))
            return
        self._complete(response)

    def _answer_late(self, pending: PendingResponse) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._restart_timer()
            self._complete(pending.later())
            self._advance()

    def _complete(self, response: Response) -> None:
        self._respond(response)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._transport is not None:
            self._transport.close()

    def _respond(self, response: Response) -> None:
        headers = [("server", _SERVER), *response.headers]
        if response.status != 204:
            headers.append(("content-length", str(len(response.body))))
        if response.content_type is not None:
            headers.append(("content-type", response.content_type))
        events: list[h11.Event] = [h11.Response(status_code=response.status, headers=headers)]
        if response.body:
            events.append(h11.Data(data=response.body))
        self._write(*events, h11.EndOfMessage())

    def _refuse(self, response: Response) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._respond(response)
        if self._transport is not None:
            self._transport.close()

    def _write(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data and self._transport is not None:
            self._transport.write(data)
