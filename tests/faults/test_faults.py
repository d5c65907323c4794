"""Every named fault in every flow ends as it is listed, the three books agree, and nothing sleeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators import hospital_faults, sms_faults, wechat_faults, wechatpay_faults
from tests.faults.acts import ACTS as CARRIED_OUT
from tests.faults.catalogue import ACTS, AREAS, ELSEWHERE, NAMES
from tests.faults.document import PATH, document
from tests.faults.flows import FLOWS
from tests.faults.walking import BASELINE, NONE, RIDERS, a_stage, listed, plan, walked
from tests.support.postgres import Database

FAULTS_MIN = 40
SHARES = 10
ROOT = Path(__file__).parents[2]


def test_what_simulators_offer_is_in_the_catalogue_and_every_name_is_there_once() -> None:
    modules = (hospital_faults, sms_faults, wechat_faults, wechatpay_faults)
    offered = {
        fault.name
        for module in modules
        for name, faults in vars(module).items()
        if name.endswith("FAULTS")
        for fault in faults
    }
    assert offered <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES) >= FAULTS_MIN
    assert {act.name for act in ACTS} == set(CARRIED_OUT)
    assert {name.partition(".")[0] for name in NAMES} == set(AREAS)


@pytest.mark.parametrize("flow", FLOWS)
def test_every_fault_has_a_listed_end_in_every_flow(flow: str) -> None:
    assert list(listed(flow)) == [BASELINE, *NAMES]


def test_what_strikes_no_flow_strikes_in_another_test() -> None:
    idle = {name for name in NAMES if all(listed(flow)[name] == NONE for flow in FLOWS)}
    assert {name for name in idle if not name.startswith(RIDERS)} == set(ELSEWHERE)
    for name, path in ELSEWHERE.items():
        assert name.partition(".")[2] in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_flow_ends_as_listed_whatever_goes_wrong(tortoise: object, database: Database, flow: str) -> None:
    """A share of the faults in each flow, another one in each; `python -m tests.faults --walk` takes all."""
    listing = listed(flow)
    share = slice(list(FLOWS).index(flow) % SHARES, None, SHARES)
    async with a_stage(database) as stage:
        wrong = [each async for each in walked(stage, flow, plan(listing)[share], listing)]
    assert wrong == []


def test_the_document_for_staff_is_the_catalogue() -> None:
    """`python -m tests.faults --document` writes it anew."""
    assert PATH.read_text(encoding="utf-8") == document()
