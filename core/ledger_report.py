"""What reading the ledger again has found. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

FINDINGS_MAX = 1_000
"""So many findings are kept; all are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is not as it was written."""

    institution: str  # its code
    place: str  # an order number, or a seal
    seq: int | None = None  # of the transfer
    problem: str

    def __str__(self) -> str:
        transfer = f" transfer {self.seq}" if self.seq is not None else ""
        return f"{self.institution} {self.place}{transfer}: {self.problem}"


@dataclass(kw_only=True, slots=True)
class Report:
    """What was read and what is wrong."""

    payments: int = 0
    transfers: int = 0
    seals: int = 0
    unsealed: int = 0  # transfers after the last seals
    unsealed_since: datetime | None = None
    wrong: int = 0
    findings: list[Finding] = field(default_factory=list)  # the first FINDINGS_MAX

    def add(self, finding: Finding) -> None:
        self.wrong += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)


def code_of(codes: Mapping[UUID, str], institution_id: UUID) -> str:
    """How an institution is named to people, one that is not there too."""
    return codes.get(institution_id) or f"institution {institution_id}"
