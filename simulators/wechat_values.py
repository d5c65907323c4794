"""The platform's rules for the values of a message template, by the type that a key begins with."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_CLOCK = r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?"
_DAY = r"\d{4}年([1-9]|1[0-2])月([1-9]|[12]\d|3[01])日"  # a padded month has been refused in the field
_MOMENT = rf"({_DAY} ?{_CLOCK}|{_DAY}|{_CLOCK})"
_DAY_AND_TIME = rf"{_DAY}( ?{_CLOCK})?"

_PATTERNS = {
    "thing": r".{1,20}",
    "number": r"-?(?=[\d.]{1,33}$)\d{1,32}(\.\d{1,31})?",
    "letter": r"[A-Za-z]{1,32}",
    "symbol": r"[^\w\s]{1,5}",
    "character_string": r"[\x21-\x7e]([\x20-\x7e]{0,30}[\x21-\x7e])?",
    "time": rf"{_MOMENT}(~{_MOMENT})?",
    "date": rf"{_DAY_AND_TIME}(~{_DAY_AND_TIME})?",
    "amount": r"[¥￥$€£]\d{1,10}(\.\d{1,2})?元?",
    "phone_number": r"[\d+\-() *#]{1,17}",
    "car_number": r".{1,8}",
    "phrase": rf"[{_HAN}]{{1,5}}",
}


def problem_of(key: str, value: object, allowed: Sequence[str] | None = None) -> str:
    """What the platform says is wrong with this value; empty when nothing is."""
    if not isinstance(value, str):
        return f"data.{key}.value type invalid"
    text = value.strip()
    if not text:
        return f"data.{key}.value is empty"
    kind = key.rstrip("0123456789")
    if allowed is not None:
        fine = text in allowed
    elif kind == "name":
        fine = len(text) <= (10 if re.search(f"[{_HAN}]", text) else 20) and "\n" not in text
    elif kind in _PATTERNS:
        fine = re.fullmatch(_PATTERNS[kind], text, re.ASCII if kind == "amount" else 0) is not None
    else:
        fine = True
    return "" if fine else f"data.{key}.value invalid"
