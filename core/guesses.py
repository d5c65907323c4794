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


@dataclass(frozen=True, slots=True)
class Guesses:
    outside: Outside

    async def count(self, institution_id: UUID, *, subject: str, actor: str, limit: GuessLimit) -> int:
        """Count one before it is compared, so that many at once are no more than one after the other.

        Returns how many are left. Raises FactorLocked; a guess in the pause does not lengthen it.
        """
        now = self.outside.clock.now()
        (row,) = await rows(
            "INSERT INTO guess (id, institution_id, subject, actor, count, since) VALUES ($1, $2, $3, $4, 1, $5)"
            " ON CONFLICT ON CONSTRAINT guess_once DO UPDATE SET"
            " count = CASE WHEN guess.since <= $6 THEN 1 ELSE least(guess.count, $7) + 1 END,"
            " since = CASE WHEN guess.since <= $6 OR guess.count < $7 THEN excluded.since ELSE guess.since END"
            " RETURNING count, since",
            self.outside.ids.uuid(),
            institution_id,
            subject,
            actor,
            now,
            now - limit.per,
            limit.most,
        )
        if row["count"] > limit.most:
            raise FactorLocked(minutes=_minutes(row["since"] + limit.per - now))
        return limit.most - int(row["count"])

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
