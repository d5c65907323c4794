"""What an adapter must be given before it can speak for an account, as a table that a page can ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Param:
    """One value. `secret` ones are never shown again once they have been entered."""

    name: str
    title: str
    required: bool = True
    secret: bool = False
    default: str = ""


def read_params(table: Iterable[Param], given: Mapping[str, str], *, owner: str) -> Mapping[str, str]:
    """Every name of the table with its value, without blanks around it. Raises ConfigurationError."""
    table = tuple(table)
    if unknown := sorted(set(given) - {param.name for param in table}):
        raise ConfigurationError(f"{owner}: unknown {', '.join(unknown)}")
    values = {param.name: given.get(param.name, "").strip() or param.default for param in table}
    if missing := [param.name for param in table if param.required and not values[param.name]]:
        raise ConfigurationError(f"{owner}: {', '.join(missing)} missing")
    return values
