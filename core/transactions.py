"""Our database transactions, and the knowledge whether one is open in this task."""

from __future__ import annotations

from contextvars import ContextVar

open_transaction: ContextVar[bool] = ContextVar("open_transaction", default=False)
"""True while this task is inside a transaction: no counterparty may be called then."""
