"""Limits of the store, validated when they are created."""

from dataclasses import dataclass

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Settings of the store. `cordon.toml` sets the two `_days`; tests shorten the others.

    Attributes:
        max_group_rows: rows after which a transaction accepts no further commits.
        max_group_bytes: the same in bytes of what is written.
        max_waiting_bytes: size of the queue at which a commit is refused.
        readers: connections that answer queries, each in a thread of its own.
        lock_wait_seconds: how long SQLite waits for a lock.
        retry_floor_seconds: the first wait after a transaction that could not be written; doubles up to the ceiling.
        close_seconds: how long `close` retries to write the queue.
        checkpoint_pages: pages of 4 KiB in the write-ahead log after which it is copied into the database.
        max_log_bytes: size of the log above which the writer waits for readers.
        idle_seconds: time without writes after which the log is emptied.
        max_dead_letters: stored rejected messages; the oldest are deleted first.
        max_dead_letters_per_device: the same for each device, so that one cannot displace the others.
        dead_payload_bytes: stored bytes of a rejected message.
        audit_days: retention of the audit log.
        command_days: retention of ended commands.
    """

    max_group_rows: int = 2000
    max_group_bytes: int = 8 * _MIB
    max_waiting_bytes: int = 256 * _MIB
    readers: int = 3
    lock_wait_seconds: float = 1.0
    retry_floor_seconds: float = 0.1
    retry_ceiling_seconds: float = 5.0
    close_seconds: float = 5.0
    checkpoint_pages: int = 4000
    max_log_bytes: int = 128 * _MIB
    idle_seconds: float = 2.0
    max_dead_letters: int = 1000
    max_dead_letters_per_device: int = 20
    dead_payload_bytes: int = 2048
    audit_days: float = 400.0
    command_days: float = 400.0

    def __post_init__(self) -> None:
        whole = (self.max_group_rows, self.max_group_bytes, self.max_waiting_bytes, self.readers)
        if min(*whole, self.checkpoint_pages, self.max_log_bytes, self.max_dead_letters) < 1:
            raise ValueError("limits are at least 1")
        if not 1 <= self.max_dead_letters_per_device <= self.max_dead_letters:
            raise ValueError("a device keeps at least one dead letter and not more than all devices together")
        if not 0 < self.retry_floor_seconds <= self.retry_ceiling_seconds:
            raise ValueError("back-off runs from a floor above zero to a ceiling not below it")
        if min(self.lock_wait_seconds, self.idle_seconds, self.audit_days, self.command_days) <= 0:
            raise ValueError("waiting and keeping times are above zero")
        if min(self.close_seconds, self.dead_payload_bytes) < 0:
            raise ValueError("close_seconds and dead_payload_bytes are not negative")
