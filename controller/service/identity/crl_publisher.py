"""The revocation lists of this authority: of the present issuing certificate, and of those that it replaced.

Their numbers and what is revoked are also marked outside the store, so that a restored older store undoes neither.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.domain.identity.certificates import Certificate, backdated
from controller.ports.certificates import (
    CertificateAuthority,
    CertificateRegistry,
    PublishedCrl,
    RevocationMarks,
    SharedRevocations,
)
from controller.ports.clock import Clock
from controller.ports.log import Log

_SEEN: Final = "seen "  # prefix of the names of other authorities' lists among the marked numbers
_COMPARABLE: Final = 2**63  # larger numbers of other authorities are stored cut


class CrlPublisher:
    """`lifetime`: seconds that a list is valid. `export` writes the lists elsewhere; it runs in a thread."""

    def __init__(
        self,
        authority: CertificateAuthority,
        registry: CertificateRegistry,
        marks: RevocationMarks,
        clock: Clock,
        lifetime: float,
        log: Log,
        export: Callable[[Sequence[PublishedCrl]], None] | None = None,
        shared: SharedRevocations | None = None,
    ) -> None:
        """`shared`: where other controllers serve the lists as well; one of them publishes, the others `follow`."""
        self._export = export
        self._authority = authority
        self._registry = registry
        self._marks = marks
        self._clock = clock
        self._lifetime = lifetime
        self._log = log
        self._lists: dict[str, PublishedCrl] = {}
        self._listed: dict[str, tuple[str, ...]] = {}
        self._shared = shared
        self._numbers: dict[str, int] = {}
        self._lock = asyncio.Lock()

    @property
    def lists(self) -> Sequence[PublishedCrl]:
        """All published lists."""
        return tuple(self._lists.values())

    def published(self, issuer: str) -> PublishedCrl | None:
        """The published list of this issuer (key identifier in hex)."""
        return self._lists.get(issuer)

    async def publish(self) -> PublishedCrl:
        """Returns the present issuer's list; makes those lists again that are due or of which a certificate changed."""
        async with self._lock:
            root = self._authority.root_revocations()
            if root is not None:
                self._lists[root.name] = root
            for issuer in self._authority.former_issuers:
                await self._publish_former(issuer)
            current = await self._publish(self._authority.issuer)
            await self._write_lists()
            return current

    async def follow(self) -> None:
        """Takes the lists that another controller published."""
        if self._shared is None:
            return
        async with self._lock:
            fresh = await self._shared.lists(self._numbers)
            for number, published in fresh:
                self._lists[published.name], self._numbers[published.name] = published, number
                self._listed.pop(published.name, None)  # a list of this controller follows that one
            root = self._authority.root_revocations()
            if root is not None:
                self._lists[root.name] = root
            if fresh:
                await self._write_lists()

    async def _write_lists(self) -> None:
        if self._export is not None:
            try:
                await asyncio.to_thread(self._export, self.lists)
            except OSError as e:  # tried again at the next pass; the revocation stands in any case
                self._log("revocation lists were not written to the folder", {"error": str(e)})

    async def _publish_former(self, issuer: str) -> None:
        """A replaced issuer's list is served until its last certificate was on one list after its end."""
        last = await self._registry.last_end(issuer)
        if last is not None and last + self._lifetime > self._clock.now():
            await self._publish(issuer)
        else:
            self._lists.pop(issuer, None)

    async def _publish(self, issuer: str) -> PublishedCrl:
        now = self._clock.now()
        revoked = await self._registry.revoked(issuer, now - self._lifetime)
        listed = tuple(sorted(one.serial for one in revoked))
        current = self._lists.get(issuer)
        if current is not None and listed == self._listed.get(issuer) and self._is_current(current, now):
            return current
        # At least the time: numbers rise even if store and marks were lost with their machine.
        number = await self._registry.next_crl_number(issuer, max(self._marks.numbers.get(issuer, 0) + 1, int(now)))
        await self._mark(revoked, {issuer: number})
        start = backdated(now, self._lifetime)
        fresh = self._authority.revocations(issuer, revoked, number, start, now + self._lifetime)
        if self._shared is not None:
            await self._shared.put_list(number, fresh)
        self._lists[issuer], self._listed[issuer], self._numbers[issuer] = fresh, listed, number
        self._log("revocation list published", {"issuer": issuer, "number": number, "revoked": len(listed)})
        return fresh

    def _is_current(self, current: PublishedCrl, now: float) -> bool:
        """Whether less than half of its lifetime is over, and it is valid already: the clock may have been set back."""
        made = current.next_update - self._lifetime
        return current.next_update - now > self._lifetime / 2 and backdated(made, self._lifetime) <= now

    async def mark_revoked(self) -> Sequence[Certificate]:
        """Makes registry and marks equal; returns what the registry did not have: it is of an older store."""
        async with self._lock:
            held = await self._registry.all_revoked()
            await self._mark(held, {})
            known = {one.serial for one in held}
            lost = [one for serial, one in self._marks.revoked.items() if serial not in known]
            return await self._registry.restore_revoked(lost) if lost else ()

    async def highest_seen(self, name: str, number: int) -> int:
        """Stores the number of another authority's list that was read; returns the highest so far."""
        key = f"{_SEEN}{name}"
        highest = max(await self._registry.note_list_number(name, number), self._marks.numbers.get(key, 0))
        await self._mark((), {key: min(highest, _COMPARABLE - 1)})
        return highest

    async def _mark(self, revoked: Sequence[Certificate], numbers: Mapping[str, int]) -> None:
        await asyncio.to_thread(self._marks.add, revoked, numbers)
