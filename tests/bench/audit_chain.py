"""What the chained record costs: `python -m tests.bench.audit_chain FOLDER [--rows N]`; nothing is asserted.

The same rows are written in groups of 500 into two files, chained as the writer does it and without, and then checked.
"""

import argparse
import sqlite3
import time
from pathlib import Path

from controller.adapters.sql.audit_chain import AuditRow
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite import audit_chain, schema
from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind

GROUP = 500  # rows of each transaction
DETAIL = '{"rule":"starter/no-telnet","result":"fail","was":"pass","why":"listening: tcp 0.0.0.0:23 telnetd"}'
_PLAIN = "INSERT INTO audit (at, kind, device_id, actor, case_id, alert, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"


def lines(first: int) -> list[AuditRow]:
    """One group."""
    return [
        AuditRow(
            1.7e9 + n, AuditKind.REPORT_POSTURE_CHANGED, f"d-{n % 5000:05d}", "cordon", "", alert=False, detail=DETAIL
        )
        for n in range(first, first + GROUP)
    ]


def write(path: Path, rows: int, *, chained: bool) -> float:
    """CPU seconds of this process for each row."""
    connection = schema.prepare(path, StoreOptions())
    used = 0.0
    for first in range(0, rows, GROUP):
        group = lines(first)
        begun = time.process_time()
        connection.execute("BEGIN IMMEDIATE")
        if chained:
            audit_chain.append(connection, [(line, line.body) for line in group])
        else:
            connection.executemany(_PLAIN, group)
        connection.execute("COMMIT")
        used += time.process_time() - begun
    connection.close()
    return used / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder on the disk to measure")
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    if any(given.folder.iterdir()):
        parser.error(f"{given.folder} is not empty")
    plain = write(given.folder / "plain.db", given.rows, chained=False)
    chained = write(given.folder / "chained.db", given.rows, chained=True)
    sizes = [(given.folder / name).stat().st_size / given.rows for name in ("plain.db", "chained.db")]
    print(f"a row without chain: {plain * 1e6:.1f} us of CPU, {sizes[0]:.0f} bytes")
    print(f"a row with chain:    {chained * 1e6:.1f} us of CPU, {sizes[1]:.0f} bytes")
    begun = time.perf_counter()
    checked = audit_chain.check_file(given.folder / "chained.db")
    took = time.perf_counter() - begun
    print(f"check of {checked.rows:,} rows: {took:.2f} s, {checked.rows / took:,.0f}/s, {len(checked.flaws)} flaws")
    with sqlite3.connect(given.folder / "chained.db") as connection:
        connection.execute("UPDATE audit SET actor = 'operator:eve' WHERE id = ?", (AuditId(1, given.rows // 2).key,))
    connection.close()
    for flaw in audit_chain.check_file(given.folder / "chained.db").flaws:
        print(flaw.text)


if __name__ == "__main__":
    main()
