"""What the daily trade bill (业务明细) says: its head, its rows, and the sums at its end. No I/O.

Source: Alipay open platform documents, 查询对账单下载地址, and bills as merchants get them. Nothing is quoted, so a
comma in a free text makes one cell more: such a line counts only when every way of reading it says the same.
Free text (names, accounts, remarks) is never decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

from core.clock import SHANGHAI
from core.money import Fen, fen_from_yuan_text
from core.ports import StatementEntry, StatementKind

COMMAS_TOO_MANY_MAX = 20
HEAD_LINES_MAX = 20
FOOT_LINES_MAX = 20
AMOUNTS_KEPT_MAX = 4096

TRADE_NO: Final = "支付宝交易号"
ORDER_NO: Final = "商户订单号"
KIND: Final = "业务类型"
BEGUN_AT: Final = "创建时间"
AT: Final = "完成时间"
AMOUNT: Final = "订单金额(元)"
RECEIVED: Final = "商家实收(元)"
DISCOUNT: Final = "商家优惠(元)"
REFUND_NO: Final = "退款批次号/请求号"
FEE: Final = "服务费(元)"
NEEDED: Final = (TRADE_NO, ORDER_NO, KIND, AT, AMOUNT, RECEIVED, DISCOUNT, REFUND_NO, FEE)

KINDS: Final[Mapping[str, StatementKind]] = {"交易": StatementKind.PAYMENT, "退款": StatementKind.REFUND}
END: Final = "业务明细列表结束"

_TRADE_NO = re.compile(rb"[0-9]{16,64}")  # not what a spreadsheet makes of it: 2.02E+27
_NUMBER = re.compile(rb"[!-~]{1,64}")
_NUMBER_OR_NONE = re.compile(rb"[!-~]{0,64}")
_NOTHING = re.compile(rb"")
_TIME = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_YUAN_OR_NONE = re.compile(rb"(?:[+-]?[0-9]{1,9}(?:\.[0-9]+)?)?")
_ACCOUNT = re.compile(r"账号[:：]\s*\[([0-9]+)")
_DAYS = re.compile(r"(起始|终止)日期[:：]\s*\[([0-9]{4})年([0-9]{2})月([0-9]{2})日 00:00:00\]")
_TOTAL = re.compile(
    r"#(交易|退款)合计[:：]([0-9]{1,9})笔[,，]商家实收(?:退款)?共(-?[0-9.]+)元"
    r"(?:[,，]商家优惠(?:退款)?共(-?[0-9.]+)元)?"
)

Look = Callable[[bytes], object]


class UnreadableBill(Exception):
    """The file is not the whole trade bill that was asked for, or one of its lines cannot be told for certain."""


@dataclass(slots=True)
class _Sum:
    count: int = 0
    received_fen: int = 0
    discount_fen: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """Where the needed columns stand, and what a row of each kind looks like (None: text, commas and all)."""

    needed: tuple[int, ...]
    looks: Mapping[StatementKind, tuple[Look | None, ...]]
    kinds: Mapping[bytes, StatementKind]

    @property
    def count(self) -> int:
        return len(self.looks[StatementKind.PAYMENT])


def rows_of(lines: Iterator[bytes], encoding: str, *, day: date, seller_id: str) -> Iterator[StatementEntry]:
    """The entries of this day's bill, then the comparison with its own sums. Raises UnreadableBill.

    `lines` come without their ends. An empty `seller_id` is not compared with the account that the bill names.
    """
    columns = _columns(_head(lines, encoding, day, seller_id), encoding)
    sums = {kind: _Sum() for kind in StatementKind}
    for number, line in enumerate(lines, start=1):
        if line.startswith(b"#"):
            if END not in _text(line, encoding):
                raise UnreadableBill(f"after {number - 1} rows comes something else than their end")
            _compare(_foot(lines, encoding), sums)
            return
        try:
            cells = _needed_cells(columns, line)
            entry, received_fen, discount_fen = _read(columns.kinds, *cells)
        except ValueError as error:
            # The chain would show what stands in the row.
            raise UnreadableBill(f"row {number}: {error}") from None
        said = sums[entry.kind]
        said.count += 1
        said.received_fen += received_fen
        said.discount_fen += discount_fen
        yield entry
    raise UnreadableBill("the rows have no end: the file is cut short")


def _head(lines: Iterator[bytes], encoding: str, day: date, seller_id: str) -> list[str]:
    """The names of the columns, after the account and the day have been compared."""
    said = []
    for line in lines:
        if not line.startswith(b"#"):
            break
        said.append(_text(line, encoding))
        if len(said) > HEAD_LINES_MAX:
            raise UnreadableBill("a head longer than any")
    else:
        raise UnreadableBill("there is no table: the file is cut short")
    head = "\n".join(said)
    days = {which: f"{year}-{month}-{day}" for which, year, month, day in _DAYS.findall(head)}
    if days != {"起始": day.isoformat(), "终止": (day + timedelta(days=1)).isoformat()}:
        raise UnreadableBill("the bill is about other days")
    account = _ACCOUNT.search(head)
    if seller_id and (account is None or not account[1].startswith(seller_id)):
        raise UnreadableBill("the bill is somebody else's")
    return [name.strip().replace("（", "(").replace("）", ")") for name in _text(line, encoding).split(",")]


def _columns(names: Sequence[str], encoding: str) -> _Columns:
    for name in NEEDED:
        if names.count(name) != 1:
            raise UnreadableBill(f"the table has no column {name}, or more than one")
    looks = {}
    for word, kind in KINDS.items():
        known: dict[str, Look] = {
            TRADE_NO: _TRADE_NO.fullmatch,
            ORDER_NO: _NUMBER.fullmatch,
            KIND: word.encode(encoding).__eq__,
            BEGUN_AT: _TIME.fullmatch,
            AT: _TIME.fullmatch,
            REFUND_NO: (_NOTHING if kind is StatementKind.PAYMENT else _NUMBER_OR_NONE).fullmatch,
        }
        money = _YUAN_OR_NONE.fullmatch
        looks[kind] = tuple(known.get(name, money if name.endswith("(元)") else None) for name in names)
    return _Columns(
        needed=tuple(names.index(name) for name in NEEDED),
        looks=looks,
        kinds={word.encode(encoding): kind for word, kind in KINDS.items()},
    )


def _needed_cells(columns: _Columns, line: bytes) -> list[bytes]:
    """The cells of the NEEDED columns, in that order. Raises ValueError."""
    cells = line.split(b",")
    too_many = len(cells) - columns.count
    if not too_many:
        return [cells[place].strip() for place in columns.needed]
    if not 0 < too_many <= COMMAS_TOO_MANY_MAX:
        raise ValueError(f"{len(cells)} cells, the table has {columns.count} columns")
    cells = [cell.strip() for cell in cells]
    readings = [found for looks in columns.looks.values() if (found := _beginnings(looks, cells))]
    if len(readings) != 1 or any(len(readings[0][place]) != 1 for place in columns.needed):
        raise ValueError(f"{too_many} commas too many, and it cannot be told in which column")
    return [cells[min(readings[0][place])] for place in columns.needed]


def _beginnings(looks: Sequence[Look | None], cells: Sequence[bytes]) -> list[set[int]]:
    """For each column the cells that may be its first, over all ways of reading the line; empty: there is none.

    A column of text takes one cell or several, every other column one cell that looks like it.
    """
    last = len(cells)
    reached = [{0}]
    for column, look in enumerate(looks):
        if look is None:
            after = set(range(min(reached[-1]) + 1, last - len(looks) + column + 2))
        else:
            after = {place + 1 for place in reached[-1] if look(cells[place])}
        if not after:
            return []
        reached.append(after)
    if last not in reached.pop():
        return []
    # From the end: only what leads to it stays.
    following = {last}
    for column in reversed(range(len(looks))):
        if looks[column] is None:
            end = max(following)
            following = {place for place in reached[column] if place < end}
        else:
            following = {place for place in reached[column] if place + 1 in following}
        reached[column] = following
    return reached


def _read(
    kinds: Mapping[bytes, StatementKind],
    trade_no: bytes,
    order_no: bytes,
    word: bytes,
    at: bytes,
    amount: bytes,
    received: bytes,
    discount: bytes,
    refund_no: bytes,
    fee: bytes,
) -> tuple[StatementEntry, Fen, Fen]:
    """One row's NEEDED cells: the entry, what the merchant received of it, and what he gave away. Raises ValueError.

    The entry's amount is the order's, before discounts and fees: it is what was asked for.
    """
    kind = kinds.get(word)
    if kind is None:
        raise ValueError(f"an unknown {KIND}")
    is_refund = kind is StatementKind.REFUND
    if not (_TRADE_NO.fullmatch(trade_no) and _NUMBER.fullmatch(order_no) and _NUMBER_OR_NONE.fullmatch(refund_no)):
        raise ValueError("a number that is none")
    if refund_no and not is_refund:
        raise ValueError(f"a payment that has a {REFUND_NO}")
    if not _TIME.fullmatch(at):
        raise ValueError(f"{AT} is no time")
    fen = _fen(amount)
    if fen < 0 if not is_refund else fen > 0:
        raise ValueError(f"{AMOUNT} has the wrong sign")
    _fen(fee)
    number = order_no.decode("ascii")
    entry = StatementEntry(
        kind=kind,
        order_no=number,
        channel_trade_no=trade_no.decode("ascii"),
        # One that was asked for without a number of its own goes by the order's (documents: 退款查询).
        refund_no=(refund_no.decode("ascii") or number) if is_refund else "",
        amount_fen=Fen(abs(fen)),
        at=datetime.fromisoformat(at.decode("ascii")).replace(tzinfo=SHANGHAI),
        state_text="退款" if is_refund else "交易",
    )
    return entry, _fen(received), _fen(discount)


@lru_cache(AMOUNTS_KEPT_MAX)
def _fen(yuan: bytes) -> Fen:
    """Signed, and exact; most of a bill's amounts are the same few. Raises ValueError."""
    text = yuan.decode("ascii")
    if text.startswith("-"):
        return Fen(-fen_from_yuan_text(text[1:]))
    return fen_from_yuan_text(text.removeprefix("+"))


def _foot(lines: Iterator[bytes], encoding: str) -> list[str]:
    foot = []
    for line in lines:
        text = _text(line, encoding).rstrip(", \t")
        if text and not text.startswith("#"):
            raise UnreadableBill("a row after their end")
        foot.append(text)
        if len(foot) > FOOT_LINES_MAX:
            raise UnreadableBill("a foot longer than any")
    return foot


def _compare(foot: Sequence[str], sums: Mapping[StatementKind, _Sum]) -> None:
    """What was read adds up to what the bill says of itself. The sign of its discounts is not documented."""
    totals = {KINDS[total[1]]: total for line in foot if (total := _TOTAL.match(line))}
    if len(totals) != len(sums):
        raise UnreadableBill("the sums are missing: the file is cut short")
    for kind, read in sums.items():
        word, count, received, discount = totals[kind].groups()
        try:
            agrees = int(count) == read.count and _fen(received.encode()) == read.received_fen
            agrees = agrees and (discount is None or abs(_fen(discount.encode())) == abs(read.discount_fen))
        except ValueError:
            raise UnreadableBill(f"the sum of {word} cannot be read") from None
        if not agrees:
            raise UnreadableBill(
                f"{word}: the bill says {count} rows, {received} and {discount or 'no'} yuan; "
                f"read were {read.count}, {read.received_fen} and {read.discount_fen} fen"
            )


def _text(line: bytes, encoding: str) -> str:
    return line.decode(encoding, errors="replace")
