"""Ten thousand harmed bodies with every run of the tests; `python -m tests.fuzz` makes as many as one likes."""

from __future__ import annotations

from typing import Any

import pytest

from bot.wechat.pushes import MODES, Push, read_push
from core.ports import Unverified
from tests.fuzz.cases import Broken, Fuzz

CASES = 10_000
SEED = 20260506


@pytest.mark.timeout(300)
def test_nothing_that_arrives_breaks_a_reader(capsys: pytest.CaptureFixture[str]) -> None:
    findings = Fuzz(SEED).run(0, CASES)
    assert findings.cases == CASES
    for mode in MODES:
        for side in ("inside", "outside"):
            accepted = findings.counts[f"{side} {mode} accepted"]
            unverified = findings.counts[f"{side} {mode} unverified"]
            assert accepted + unverified == CASES // 2
            enough = {"inside": 1_000, "outside": 100}[side]
            assert accepted >= enough, f"{side} {mode}: too few reach what lies behind the signature"
            assert unverified >= 1_000
    assert findings.counts["answered"] >= 200
    assert findings.peak_bytes > 0
    with capsys.disabled():
        print(
            f"\n{CASES} harmed pushes, {CASES / findings.seconds:.0f} a second: {dict(sorted(findings.counts.items()))}"
        )


def test_a_case_is_the_same_alone() -> None:
    together, alone = Fuzz(1).run(0, 40), Fuzz(1)
    for number in range(40):
        alone.run(number, 1)
    assert alone.findings.counts == together.counts
    assert alone.findings.reasons == together.reasons


def raising(*arguments: Any) -> Push | Unverified:
    result = read_push(*arguments)
    if isinstance(result, Unverified) and "DTD" in result.reason:
        raise KeyError("a mistake")
    return result


def believing(keys: Any, query: Any, body: bytes, *arguments: Any) -> Push | Unverified:
    """Takes what stands beside the sealed part."""
    result = read_push(keys, query, body, *arguments)
    if isinstance(result, Push) and keys.mode == "compatible":
        event = result.event
        object.__setattr__(event, "open_id", "somebody else")
    return result


def silent(*arguments: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("mistake", "seen"), [(raising, "KeyError"), (believing, "something else"), (silent, "NoneType")]
)
def test_mistakes_are_seen(mistake: Any, seen: str) -> None:
    with pytest.raises(Broken, match=rf"seed 1, case \d+: .*{seen}"):
        Fuzz(1, mistake).run(0, 5_000)
