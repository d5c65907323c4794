"""The daily trade bill (交易账单): asked for, downloaded, its hash compared, and only then read, line by line.

Source: WeChat Pay merchant documents, APIv3, 申请交易账单 and 下载账单. The file is not signed; the answer that tells
its hash is. Columns are found by their names, amounts are yuan in text.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import BinaryIO, cast
from urllib.parse import urlencode

from channels.wechatpay.client import Client
from channels.wechatpay.mapping import Call
from channels.wechatpay.records import Unreadable, record_of, text
from core.clock import SHANGHAI
from core.errors import OutcomeUnknown, Refused
from core.money import Fen
from core.ports import MerchantAccount, StatementEntry, StatementKind
from wire.batches import in_batches
from wire.http import Downloads

BILL_PATH = "/v3/bill/tradebill"
DOWNLOAD_SECONDS = 600.0
FILE_BYTES_MAX = 1 << 30
CONTENT_BYTES_MAX = 4 << 30
LINE_BYTES_MAX = 64 << 10
IN_MEMORY_BYTES = 1 << 20
HASHED_AT_ONCE = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
NOTHING_THAT_DAY = "NO_STATEMENT_EXIST"
SUMMARY_FIRST = "总交易单数"
NONE = frozenset({"", "0"})
UNREADABLE = (Unreadable, UnicodeDecodeError, EOFError, OSError)


@dataclass(frozen=True, slots=True)
class Statements:
    client: Client
    downloads: Downloads

    async def entries(self, account: MerchantAccount, day: date) -> AsyncIterator[StatementEntry]:
        """Everything that was paid or refunded on this day in Shanghai, in bounded memory.

        Raises NotReached, Refused (final false: not ready yet) or OutcomeUnknown. A bill that is cut short or changed
        is OutcomeUnknown before its first row is given, one whose sums do not agree after its last.
        """
        target = await self._apply(account, day)
        if target is None:
            return
        address, wanted = target
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as kept:
            file: BinaryIO = kept  # type: ignore[assignment]
            await self.client.download(account, address, file, self.downloads, FILE_BYTES_MAX, DOWNLOAD_SECONDS)
            if not await asyncio.to_thread(_is_as_told, file, wanted):
                raise OutcomeUnknown("the bill is not the file whose hash was told")
            try:
                async for entry in in_batches(rows_of(_lines(file)), *UNREADABLE):
                    yield entry
            except UNREADABLE as error:
                raise OutcomeUnknown(f"the bill cannot be read: {error}") from error

    async def _apply(self, account: MerchantAccount, day: date) -> tuple[str, str] | None:
        """The address to download from and the SHA-1 to expect; None when nothing happened that day."""
        credentials = self.client.credentials(account)
        asked = {"bill_date": day.isoformat(), "bill_type": "ALL", "tar_type": "GZIP"}
        query = urlencode({**credentials.parties.refund_numbers, **asked})
        try:
            answer = record_of(await self.client.call(account, Call.STATEMENT, "GET", f"{BILL_PATH}?{query}"))
            if text(answer, "hash_type") != "SHA1":
                raise Unreadable("an unknown hash")
            url, wanted = text(answer, "download_url"), text(answer, "hash_value")
        except Refused as refused:
            if refused.code == NOTHING_THAT_DAY:
                return None
            raise
        except Unreadable as error:
            raise OutcomeUnknown(f"{Call.STATEMENT}: {error}") from error
        if not url.startswith(f"{credentials.base_url}/"):
            # Our signature goes with the download: it goes to nobody else.
            raise OutcomeUnknown(f"{Call.STATEMENT}: the address of the file is somebody else's")
        return url.removeprefix(credentials.base_url), wanted


def _is_as_told(file: BinaryIO, wanted: str) -> bool:
    """The documents do not say which bytes are hashed: the official code takes the unpacked ones."""
    packed = hashlib.sha1(usedforsecurity=False)  # theirs to choose
    unpacked, size = packed.copy(), 0
    file.seek(0)
    while part := file.read(HASHED_AT_ONCE):
        packed.update(part)
    try:
        plain = _unpacked(file)
        while part := plain.read(HASHED_AT_ONCE):
            unpacked.update(part)
            size += len(part)
            if size > CONTENT_BYTES_MAX:
                return False
    except (OSError, EOFError):
        return False
    return hmac.compare_digest(packed.hexdigest(), wanted.lower()) or hmac.compare_digest(
        unpacked.hexdigest(), wanted.lower()
    )


def _unpacked(file: BinaryIO) -> BinaryIO:
    """Its content from the beginning, packed or not: GZIP is what we ask for, not always what comes."""
    file.seek(0)
    is_packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if is_packed else file


def _lines(file: BinaryIO) -> Iterator[str]:
    plain = _unpacked(file)
    while line := plain.readline(LINE_BYTES_MAX):
        if len(line) == LINE_BYTES_MAX:
            raise Unreadable("a line longer than any")
        yield line.decode("utf-8-sig").rstrip("\r\n")


def rows_of(lines: Iterator[str]) -> Iterator[StatementEntry]:
    """The entries, then the comparison with the summary at the end. Raises Unreadable."""
    names = next(lines, "").split(",")
    paid_fen = refunded_fen = 0
    for count, line in enumerate(lines):
        if line.startswith(SUMMARY_FIRST):
            _compare(line.split(","), next(lines, ""), count, paid_fen, refunded_fen)
            return
        cells = line.split(",")
        if len(cells) != len(names):
            raise Unreadable(f"row {count + 1} has {len(cells)} columns, the head has {len(names)}")
        entry = entry_of(dict(zip(names, (cell.removeprefix("`") for cell in cells), strict=True)))
        if entry.kind is StatementKind.PAYMENT:
            paid_fen += entry.amount_fen
        else:
            refunded_fen += entry.amount_fen
        yield entry
    raise Unreadable("there is no summary: the file is cut short")


def entry_of(row: Mapping[str, str]) -> StatementEntry:
    """One row of a trade bill by its column names. Raises Unreadable.

    A refund's row is written when the refund is accepted and never changed: its state is of that moment.
    """
    try:
        is_refund = row.get("商户退款单号", "") not in NONE
        amount = row.get("申请退款金额") or row["退款金额"] if is_refund else row.get("订单金额") or row["总金额"]
        return StatementEntry(
            kind=StatementKind.REFUND if is_refund else StatementKind.PAYMENT,
            order_no=row["商户订单号"],
            channel_trade_no=row["微信订单号"],
            refund_no=row["商户退款单号"] if is_refund else "",
            channel_refund_no=row["微信退款单号"] if is_refund else "",
            amount_fen=_fen(amount),
            at=datetime.strptime(row["交易时间"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI),
            state_text=row.get("退款状态", "") if is_refund else row.get("交易状态", ""),
        )
    except (KeyError, ValueError) as error:
        raise Unreadable(f"a row of the bill: {error}") from error


def _fen(yuan: str) -> Fen:
    try:
        fen = Decimal(yuan) * 100
    except InvalidOperation as error:
        raise Unreadable("an amount that is no number") from error
    if fen != fen.to_integral_value() or fen < 0:
        raise Unreadable("an amount that is no whole number of fen")
    return Fen(int(fen))


def _compare(names: list[str], line: str, count: int, paid_fen: int, refunded_fen: int) -> None:
    """What was read adds up to what the bill says of itself; older bills name fewer sums."""
    said = dict(zip(names, (cell.removeprefix("`") for cell in line.split(",")), strict=False))
    try:
        if Decimal(said[SUMMARY_FIRST]) != count:
            raise Unreadable(f"the bill says {said[SUMMARY_FIRST]} rows, {count} were read")
        for name, ours in (("订单总金额", paid_fen), ("申请退款总金额", refunded_fen)):
            if name in said and _fen(said[name]) != ours:
                raise Unreadable(f"{name} is {said[name]} yuan, the rows come to {ours} fen")
    except (KeyError, InvalidOperation) as error:
        raise Unreadable("the summary cannot be read") from error
