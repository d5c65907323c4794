"""Counts guesses in the database, so that no restart and no emptied cache gives new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from core.errors import FactorLocked
from core.models import Guess
from core.outside import Outside
from core.tenancy import scoped
from core.transactions import rows


@dataclass(frozen=True, kw_only=True, slots=True)
class GuessLimit:
    """After `most` guesses, each within `per` of the one before, there is a pause of `per`."""

    most: int
    per: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How many guesses are left, and whether this one had been counted before."""

    left: int
    is_repeated: bool


@dataclass(frozen=True, slots=True)
class Guesses:
    outside: Outside

    async def count(
        self, institution_id: UUID, *, subject: str, actor: str, limit: GuessLimit, tried: str = ""
    ) -> Counted:
        """Count one before it is compared, so that many at once are no more than one after the other.

        With `tried`, a digest of who compares what with what, the same again is the same guess: who taps twice, or
        whose request is repeated while the HIS is slow, learns nothing new and loses no guess. Only the last one is
        known: an older one counts again.

        Raises FactorLocked; a guess in the pause does not lengthen it.
        """
        now = self.outside.clock.now()
        (row,) = await rows(
            "INSERT INTO guess (id, institution_id, subject, actor, count, since, tried, repeats)"
            " VALUES ($1, $2, $3, $4, 1, $5, $8, 0)"
            " ON CONFLICT ON CONSTRAINT guess_once DO UPDATE SET"
            " count = CASE WHEN guess.since <= $6 THEN 1"
            "  WHEN excluded.tried <> '' AND guess.tried = excluded.tried THEN guess.count"
            "  ELSE least(guess.count, $7) + 1 END,"
            " repeats = CASE WHEN guess.since > $6 AND excluded.tried <> '' AND guess.tried = excluded.tried"
            "  THEN guess.repeats + 1 ELSE 0 END,"
            " since = CASE WHEN guess.since <= $6 OR guess.count < $7 THEN excluded.since ELSE guess.since END,"
            " tried = excluded.tried"
            " RETURNING count, since, repeats",
            self.outside.ids.uuid(),
            institution_id,
            subject,
            actor,
            now,
            now - limit.per,
            limit.most,
            tried,
        )
        if row["count"] > limit.most:
            raise FactorLocked(minutes=_minutes(row["since"] + limit.per - now))
        return Counted(left=limit.most - int(row["count"]), is_repeated=row["repeats"] > 0)

    async def check(self, institution_id: UUID, *, subject: str, actor: str, limit: GuessLimit) -> None:
        """Raises FactorLocked in the pause; counts nothing."""
        now = self.outside.clock.now()
        row = await scoped(institution_id).of(Guess).get_or_none(subject=subject, actor=actor)
        if row is not None and row.count > limit.most and row.since > now - limit.per:
            raise FactorLocked(minutes=_minutes(row.since + limit.per - now))

    async def give_back(self, institution_id: UUID, *, subject: str, actor: str) -> None:
        """The guess was right: this one does not count in the sum, the wrong ones before it do."""
        await rows(
            "UPDATE guess SET count = greatest(count - 1, 0)"
            " WHERE institution_id = $1 AND subject = $2 AND actor = $3 RETURNING id",
            institution_id,
            subject,
            actor,
        )

    async def forget(self, institution_id: UUID, *, subject: str, actor: str) -> None:
        """The guess was right."""
        await scoped(institution_id).of(Guess).filter(subject=subject, actor=actor).delete()


def _minutes(left: timedelta) -> int:
    return max(1, math.ceil(left / timedelta(minutes=1)))
