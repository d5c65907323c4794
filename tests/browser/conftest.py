"""The sandbox of a file's stories, begun anew for each file in one folder: keys and the migrated database are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patient_phone import Hospital
from tests.support.sandbox_page import a_sandbox_folder, running_sandbox


@pytest.fixture(scope="session")
def sandbox_folder() -> Iterator[Path]:
    with a_sandbox_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def address(sandbox_folder: Path) -> Iterator[str]:
    """Of the sandbox's page."""
    with running_sandbox(sandbox_folder) as address:
        assert address.startswith("http://127.0.0.1:")
        yield address


@pytest.fixture(scope="module")
def hospital(address: str, sandbox_folder: Path) -> Hospital:
    """The same sandbox from behind its desk."""
    return Hospital(address=address.rstrip("/"), folder=sandbox_folder)
