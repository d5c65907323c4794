"""One case: a body that somebody has harmed, given to the readers in every mode; and what must hold for it.

Half of the cases harm the document inside and sign and seal it rightly, as if the platform had sent it: so the
reading behind the signature is reached. The other half harm the envelope: then only what was sealed may come out.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from random import Random
from typing import Any

from bot.events import ID_LENGTH_MAX, LIST_LENGTH_MAX, TEXT_LENGTH_MAX, ChatEvent, Reply
from bot.wechat.events import event_of
from bot.wechat.pushes import MODES, Push, read_push, write_reply
from core.ports import Unverified
from tests.fuzz.corpus import bodies
from tests.fuzz.mutating import mutated, mutated_document
from tests.support.pushes import ACCOUNT, NOW, PERSON, a_query, an_envelope, as_json, as_xml, keys, sealed_message
from wire.xml import BadXml, read_xml

CPU_SECONDS_MAX = 1.0  # for one case, all modes together, whatever else the computer does
PEAK_BYTES_MAX = 32 << 20  # of what Python allocates for one reading
WATCHED_EVERY = 251  # watching memory makes a case several times as slow
LARGE_BYTES = 50_000  # of larger bodies every second is watched
ANSWERED_EVERY = 7
KEYS = {mode: keys(mode) for mode in MODES}

Harmed = tuple[int, list[Callable[[], None]]]  # the length of the body, and the readings that it gets
Reader = Callable[..., Push | Unverified]


class Broken(AssertionError):
    """A case for which something that must hold does not."""


@dataclass(kw_only=True)
class Findings:
    """What a run has seen."""

    seed: int
    cases: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    peak_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class Fuzz:
    """All cases of one seed; case n is the same whether or not those before it were run."""

    def __init__(self, seed: int, read: Reader = read_push) -> None:
        self.findings = Findings(seed=seed)
        self._read = read
        self._bodies = bodies()
        self._documents = tuple(_document(body) for body in self._bodies)
        self._events = tuple(event_of(document) for document in self._documents)

    def run(self, first: int, count: int) -> Findings:
        """Raises Broken, which names the case and the seed."""
        started, number = time.perf_counter(), first
        try:
            for number in range(first, first + count):
                self._run_one(number)
                self.findings.cases += 1
        except Exception as error:
            raise Broken(f"seed {self.findings.seed}, case {number}: {type(error).__name__}: {error}") from error
        finally:
            self.findings.seconds += time.perf_counter() - started
        return self.findings

    def _run_one(self, number: int) -> None:
        random = Random(self.findings.seed * 1_000_000_007 + number)
        harm = self._harm_inside if number % 2 else self._harm_outside
        size, readings = harm(random.randrange(len(self._bodies)), random)
        watched = number % WATCHED_EVERY == 0 or (size > LARGE_BYTES and number // 2 % 2 == 0)
        if watched:
            tracemalloc.start()
        try:
            started = time.thread_time()
            for reading in readings:
                reading()
            seconds = time.thread_time() - started
            peak = tracemalloc.get_traced_memory()[1] if watched else 0
        finally:
            tracemalloc.stop()
        self.findings.peak_bytes = max(self.findings.peak_bytes, peak)
        assert peak <= PEAK_BYTES_MAX, f"{peak} bytes"
        if not watched:
            self.findings.slowest_seconds = max(self.findings.slowest_seconds, seconds)
            assert seconds <= CPU_SECONDS_MAX, f"{seconds:.2f} seconds"

    def _harm_inside(self, chosen: int, random: Random) -> Harmed:
        if random.randrange(2):
            message = mutated_document(self._documents[chosen], self._documents, random)
        else:
            message = mutated(self._bodies[chosen], self._bodies, random)
        sealed = sealed_message(message)
        query = a_query(sealed=sealed)
        beside = as_json if message.startswith(b"{") else as_xml
        both = beside({"ToUserName": ACCOUNT, "FromUserName": "somebody else", "Encrypt": sealed})
        return len(message), [
            lambda: self._xml(message),
            lambda: self._push("inside", "plain", query, message),
            lambda: self._push("inside", "compatible", query, both),
            lambda: self._push("inside", "safe", query, an_envelope(message, sealed)),
        ]

    def _harm_outside(self, chosen: int, random: Random) -> Harmed:
        body, event = self._bodies[chosen], self._events[chosen]
        sealed = sealed_message(body)
        query = a_query(sealed=sealed)
        if random.randrange(4) == 0:
            name = random.choice(sorted(query))
            harmed = mutated(query[name].encode(), self._bodies, random).decode("utf-8", "surrogateescape")
            query[name] = harmed[:2_000]
        envelope = an_envelope(body, sealed)
        others = (*self._bodies[:4], envelope)
        one, other = mutated(envelope, others, random), mutated(body, others, random)
        return max(len(one), len(other)), [
            lambda: self._xml(one),
            lambda: self._push("outside", "plain", query, other),
            lambda: self._push("outside", "compatible", query, one, only=event),
            lambda: self._push("outside", "safe", query, one, only=event),
        ]

    def _xml(self, body: bytes) -> None:
        for mend in (False, True):
            try:
                read = read_xml(body, mend=mend)
            except BadXml:
                self.findings.counts["xml refused"] += 1
            else:
                assert isinstance(read, dict)
                self.findings.counts["xml read"] += 1

    def _push(self, side: str, mode: str, query: dict[str, str], body: bytes, *, only: ChatEvent | None = None) -> None:
        result: Any = self._read(KEYS[mode], query, body, "", NOW)
        if isinstance(result, Unverified):
            self.findings.counts[f"{side} {mode} unverified"] += 1
            self.findings.reasons[result.reason] += 1
            assert PERSON not in result.reason
            return
        assert isinstance(result, Push), type(result)
        self.findings.counts[f"{side} {mode} accepted"] += 1
        assert only is None or result.event == only, "something else than what was sealed"
        _check_event(result.event)
        if self.findings.counts[f"{side} {mode} accepted"] % ANSWERED_EVERY == 0:
            self._answer(mode, result)

    def _answer(self, mode: str, push: Push) -> None:
        answer = write_reply(KEYS[mode], push, Reply(text="好"), now=NOW, nonce="n1")
        _document(answer.body)
        self.findings.counts["answered"] += 1


def _check_event(event: ChatEvent) -> None:
    assert len(event.event_id) == 64
    assert 0 < len(event.open_id) <= ID_LENGTH_MAX
    assert 0 < len(event.to) <= ID_LENGTH_MAX
    assert len(event.scene) <= ID_LENGTH_MAX
    assert len(event.text) <= TEXT_LENGTH_MAX
    assert len(event.deliveries) <= LIST_LENGTH_MAX + 1
    assert len(event.grants) <= LIST_LENGTH_MAX
    assert event.happened_at.tzinfo is UTC
    texts = [event.open_id, event.to, event.scene, event.text]
    texts += [text for each in event.deliveries for text in (each.platform_message_id, each.code)]
    texts += [grant.template_id for grant in event.grants]
    for text in texts:
        assert "\0" not in text
        text.encode()


def _document(body: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(body) if body.startswith(b"{") else read_xml(body)
    return document
