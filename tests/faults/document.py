"""docs/faults.md from the catalogue: what may go wrong, what happens then, how it ends."""

from __future__ import annotations

from pathlib import Path

from simulators.faults import Fault
from tests.faults.catalogue import ALL, AREAS, SEEN_IN_STATEMENT
from tests.faults.flows import FLOWS
from tests.faults.walking import NONE, SAME, listed

PATH = Path(__file__).parents[2] / "docs" / "faults.md"
HEAD = """# What may go wrong, and how it ends

Every fault here is made on purpose in tests and in the sandbox, and led through each of these flows: {flows}. In all
of them nobody pays twice, no bill is booked twice, and what was taken is booked at the HIS or given back to the last
fen; where a person has to look, a case says so ([runbook.md](runbook.md#cases)). The last column names the flows
whose end is another one than without the fault. `python -m tests.faults --document` writes this page.
"""


def document() -> str:
    flows = ", ".join(name.replace("_", " ") for name in FLOWS)
    listings = {flow: listed(flow) for flow in FLOWS}
    parts = [HEAD.format(flows=flows)]
    for area, title in AREAS.items():
        parts.append(
            f"\n## {title}\n\n| Name | What happens | How it ends | Ends otherwise in |\n| --- | --- | --- | --- |\n"
        )
        for fault in (fault for fault in ALL if fault.name.startswith(f"{area}.")):
            other = [
                flow.replace("_", " ") for flow in FLOWS if listings[flow].get(fault.name, NONE) not in {NONE, SAME}
            ]
            ends = fault.ends
            if isinstance(fault, Fault) and fault.needs_person:
                ends += " A person acts."
            if fault.name in SEEN_IN_STATEMENT:
                ends += (
                    f" In {', '.join(sorted(SEEN_IN_STATEMENT[fault.name]))}: only its statement of the day shows it."
                )
            parts.append(f"| `{fault.name}` | {fault.title_zh} | {ends} | {', '.join(other) or '—'} |\n")
    return "".join(parts)
