"""Mistakes made on purpose in the forked programs alone; each one must be caught by a seed."""

from __future__ import annotations

from collections.abc import Callable

from tests.crash.mutations import MUTATIONS as ALL

MUTATIONS: dict[str, Callable[[], None]] = {
    name: ALL[name]
    for name in (
        "refund_before_row",
        "confirm_without_asking",
        "lease_ignored",
        "refund_timeout_is_dead",
        "silence_means_not_sent",
        "evidence_after_end_lost",
        "row_lock_forgotten",
        "transfer_forgotten",
    )
}
