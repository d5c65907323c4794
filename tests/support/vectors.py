"""Where the published test vectors lie: those of the parts that are here, in the checkout; perhaps more beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]


def vectors_folder(counterparty: str) -> Path:
    """The vectors that belong to the checkout: every fresh clone runs them."""
    return _CHECKOUT / "tests" / "vectors" / counterparty


def all_vector_folders(counterparty: str) -> list[Path]:
    """Also the folder beside the checkout, where there is one; it holds those of parts to come."""
    beside = (_CHECKOUT / ".." / "shared" / "vectors" / counterparty).resolve()
    return [vectors_folder(counterparty), *([beside] if beside.is_dir() else [])]


def read_vectors(counterparty: str, name: str) -> Any:
    return json.loads((vectors_folder(counterparty) / name).read_text())
