"""Where the published test vectors lie: beside the checkout, never inside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_CHECKOUT = Path(__file__).resolve().parents[2]


def vectors_folder(counterparty: str) -> Path:
    """The folder of a counterparty's vectors; a test that needs it is skipped without it, except in CI."""
    folder = (_CHECKOUT / ".." / "shared" / "vectors" / counterparty).resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the test vectors of {counterparty} are missing")
        pytest.skip(f"no test vectors of {counterparty} beside this checkout")
    return folder


def read_vectors(counterparty: str, name: str) -> Any:
    return json.loads((vectors_folder(counterparty) / name).read_text())
