"""What a seed fixes: the day, who dies at which byte, and what becomes of the bytes. Not the interleaving."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from simulators.faults import Fault
from tests.crash.day import Day
from tests.kills.children import WEB, WORKER
from tests.kills.postgres_wire import CLAIM, COMMIT, WRITE

POSTGRES, WECHATPAY, HOSPITAL, WECHAT, FRONT = "postgres", "wechatpay", "hospital", "wechat", "front"

CALLS = {
    WECHATPAY: ("", "create", "query", "close", "refund", "query_refund"),
    HOSPITAL: ("", "lock_bills", "confirm_payment", "query_payment", "query_lock", "release_lock"),
    WECHAT: ("",),
    FRONT: ("start", "cancel", "show", "notice", "event", ""),
}
NTH_MAX = {COMMIT: 24, WRITE: 40, CLAIM: 12}
TAKEN = (
    *(f"WITH {table}" for table in ("message", "payment", "confirmation", "refund", "inbound")),
    *(f"SELECT {table}" for table in ("message", "message", "confirmation", "refund")),
)
"""A worker's taking of rows and its reading of what it has taken, as their statements are called."""

QUESTIONS = frozenset({"get_bill", "lock_bills"})
EVERYWHERE_MAX = 0.1
REFUSES = "hospital.refuses_confirm"

LATER_SECONDS = (0.0, 0.0, 0.0, 3.0, 12.0)
"""How long bytes may still be on their way when their sender is dead: within every counterparty's bounds."""


class Side(StrEnum):
    REQUEST = "request"
    ANSWER = "answer"


class Victim(StrEnum):
    PROGRAM = "program"  # whoever speaks on this connection
    POSTGRES = "postgres"  # the postmaster, while the bytes are held
    NOBODY = "nobody"  # the connection alone is cut
    TIME = "time"  # the program stands still (SIGSTOP) while everybody else goes on, then has its answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """The nth such message is held, somebody dies, and the bytes go on or are lost."""

    kind: str  # of the program
    peer: str
    call: str  # empty: any
    nth: int
    side: Side
    victim: Victim
    forward: bool
    later_seconds: float = 0.0

    def __str__(self) -> str:
        what = f"{self.kind}'s {self.nth}. {self.call or 'any'} {self.side} at {self.peer}"
        late = f" {self.later_seconds:g} s later" if self.later_seconds else ""
        return f"{what}: kill {self.victim}, {'forward' if self.forward else 'drop'}{late}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    day: Day
    strikes: tuple[Strike, ...]
    forgettings: tuple[tuple[float, bool], ...] = field(default=())  # when Redis is emptied, and whether by its death

    @classmethod
    def of(cls, seed: int, catalogue: Iterable[Fault]) -> Plan:
        faults = list(catalogue)
        draw = random.Random(f"{seed}/kills")
        strikes = [_a_strike(draw) for _ in range(draw.choice((0, 1, 2, 3, 4, 6)))]
        if draw.random() < 0.12:
            strikes.append(_the_database_dies(draw))
        if draw.random() < 0.3:
            strikes.append(_a_worker_stands_still(draw))
        day = _with_a_hospital_that_answers(Day.of(seed, faults), faults)
        kind = random.Random(f"{seed}/kind of day")
        if kind.random() < 0.35:
            day = replace(day, weak=True)
            strikes.append(_somebody_stands_still_before_booking(kind))
        elif kind.random() < 0.5:
            day = replace(day, rates=day.rates | {REFUSES: kind.uniform(0.3, 0.8)})
            strikes += _no_word_about_a_refund()
        forgettings = [(draw.uniform(5, 400), draw.random() < 0.5) for _ in range(draw.choice((0, 0, 1, 2)))]
        return cls(
            day=day,
            strikes=tuple(strikes),
            forgettings=tuple(sorted(forgettings)),
        )

    def lines(self) -> list[str]:
        day = self.day
        return [
            f"{day.servers} web, {day.workers} workers, {day.visits} visits, merge {day.merge},"
            f" confirm_unit {day.confirm_unit}, lock {not day.no_lock}, events {not day.no_events},"
            f" rivals {day.rivals}, meddling {day.meddling}, wrong amounts {day.wrong_amounts},"
            f" revivals {day.revivals}",
            *(f"fault {name} at {rate:.3f}" for name, rate in day.rates.items()),
            *(f"strike {strike}" for strike in self.strikes),
            *(f"Redis {'dies' if dies else 'is emptied'} after {at:.0f} s" for at, dies in self.forgettings),
        ]


def _a_strike(draw: random.Random) -> Strike:
    peer = draw.choices((POSTGRES, WECHATPAY, HOSPITAL, WECHAT, FRONT), (9, 4, 4, 1, 2))[0]
    kind = WEB if peer == FRONT else draw.choice((WEB, WEB, WORKER))
    if peer == POSTGRES:
        call = draw.choice((COMMIT, COMMIT, WRITE, CLAIM) if kind == WORKER else (COMMIT, COMMIT, WRITE))
        nth = draw.randint(1, NTH_MAX[call])
    else:
        call = draw.choice(CALLS[peer])
        nth = draw.randint(1, 2 if call else 8)
    answer = peer == FRONT or call == CLAIM or draw.random() < 0.5
    return Strike(
        kind=kind,
        peer=peer,
        call=call,
        nth=nth,
        side=Side.ANSWER if answer else Side.REQUEST,
        victim=Victim.PROGRAM if draw.random() < 0.8 else Victim.NOBODY,
        forward=draw.random() < (0.5 if peer == FRONT or not answer else 0.0),
        later_seconds=draw.choice(LATER_SECONDS) if peer not in (POSTGRES, FRONT) and not answer else 0.0,
    )


def _the_database_dies(draw: random.Random) -> Strike:
    return Strike(
        kind=draw.choice((WEB, WORKER)),
        peer=POSTGRES,
        call=draw.choice((COMMIT, WRITE)),
        nth=draw.randint(1, 12),
        side=draw.choice((Side.REQUEST, Side.ANSWER)),
        victim=Victim.POSTGRES,
        forward=draw.random() < 0.5,
    )


def _a_worker_stands_still(draw: random.Random) -> Strike:
    """Longer than a lease lasts, or not quite: whoever else there is takes over."""
    peer = draw.choice((POSTGRES, POSTGRES, WECHATPAY, HOSPITAL))
    call = draw.choice((WRITE, *TAKEN)) if peer == POSTGRES else ""
    return Strike(
        kind=WORKER,
        peer=peer,
        call=call,
        nth=draw.randint(1, {WRITE: 12}.get(call, 3)),
        side=Side.ANSWER,
        victim=Victim.TIME,
        forward=True,
        later_seconds=draw.choice((20.0, 95.0, 260.0, 600.0)),
    )


def _somebody_stands_still_before_booking(draw: random.Random) -> Strike:
    """Just when he says that he sends, and wakes when another has sent it; to a HIS that books what comes twice."""
    return Strike(
        kind=draw.choice((WEB, WEB, WEB, WORKER)),
        peer=POSTGRES,
        call="UPDATE confirmation",
        nth=draw.choice((2, 2, 5)),  # each time after his taking of the row
        side=Side.REQUEST,
        victim=Victim.TIME,
        forward=True,
        later_seconds=draw.choice((260.0, 600.0)),
    )


def _no_word_about_a_refund() -> list[Strike]:
    """Whoever sends the first ones lives on and does not hear that the money goes back."""
    return [
        Strike(
            kind=kind,
            peer=WECHATPAY,
            call="refund",
            nth=1,
            side=Side.ANSWER,
            victim=Victim.NOBODY,
            forward=False,
        )
        for kind in (WEB, WORKER)
    ]


def _with_a_hospital_that_answers(day: Day, faults: Iterable[Fault]) -> Day:
    """What strikes every question to the HIS strikes seldom, or nobody gets as far as paying, and nobody is killed."""
    everywhere = {fault.name for fault in faults if fault.calls >= QUESTIONS}
    rates = {name: min(rate, EVERYWHERE_MAX) if name in everywhere else rate for name, rate in day.rates.items()}
    return replace(day, rates=rates)


class Strikes:
    """Counts what passes and says which strike is due."""

    def __init__(self, planned: Iterable[Strike]) -> None:
        self._left = {strike: strike.nth for strike in planned}

    def due(self, kind: str, peer: str, call: str, side: Side, *, also: str = "") -> Strike | None:
        """`also`: what the same message is called more exactly."""
        found = None
        for strike in list(self._left):
            if (strike.kind, strike.peer, strike.side) != (kind, peer, side) or strike.call not in ("", call, also):
                continue
            if strike.call == "" and peer == POSTGRES:
                continue
            self._left[strike] -= 1
            if self._left[strike] <= 0 and found is None:
                del self._left[strike]
                found = strike
        return found

    def left(self) -> int:
        return len(self._left)

    def clear(self) -> None:
        self._left.clear()
