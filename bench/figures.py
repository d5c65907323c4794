"""The table that a bench run prints: figure, target, verdict."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """`most` is the target; None for a figure that has none."""

    what: str
    value: float
    unit: str
    most: float | None = None

    @property
    def holds(self) -> bool:
        return self.most is None or self.value <= self.most

    @property
    def verdict(self) -> str:
        return "" if self.most is None else "holds" if self.holds else "MISSED"


@dataclass(kw_only=True, slots=True)
class Figures:
    rows: list[Figure] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, *, most: float | None = None) -> None:
        self.rows.append(Figure(what=what, value=value, unit=unit, most=most))

    @property
    def hold(self) -> bool:
        """Whether something was measured and every target is met."""
        return bool(self.rows) and all(row.holds for row in self.rows)

    def table(self) -> str:
        wide = max((len(row.what) for row in self.rows), default=0)
        lines = [f"{'figure':<{wide}}  {'measured':>10}          target  verdict"]
        for row in self.rows:
            target = "" if row.most is None else f"≤ {row.most:g}"
            lines.append(f"{row.what:<{wide}}  {row.value:>10.2f} {row.unit:<7} {target:>7}  {row.verdict}".rstrip())
        return "\n".join(lines)
