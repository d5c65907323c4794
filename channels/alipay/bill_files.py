"""The archive in which the daily trade bill (业务账单) comes, read in bounded memory.

Source: Alipay open platform documents, 查询对账单下载地址. Nothing is signed, and an address that is too old answers
with a page: the archive's own check sums, the bill's day, its account and its sums are all that can be compared.
Names in the archive are GBK bytes that nobody marks as such, so what an entry is stands in its first line.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import BinaryIO, Final, cast

from channels.alipay.bill_rows import UnreadableBill, rows_of
from core.errors import OutcomeUnknown
from core.ports import StatementEntry
from wire.batches import in_batches

ARCHIVE_BYTES_MAX = 1 << 30
CONTENT_BYTES_MAX = 4 << 30
READ_AT_ONCE_MAX = 128 << 10
ENTRIES_MAX = 16
LINE_BYTES_MAX = 64 << 10
PART_BYTES = 64 << 10

MAGIC: Final = b"PK"
FIRST_LINE: Final = "#支付宝业务明细查询"
ENCODINGS: Final = ("gb18030", "utf-8")  # the second in files that somebody has saved again
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
ENCRYPTED: Final = 1
PACKED_AS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # zipfile bounds what these two unpack at once


def is_archive(file: BinaryIO) -> bool:
    """False for the page with which an address answers that is too old: another one must be asked for."""
    file.seek(0)
    return file.read(len(MAGIC)) == MAGIC


async def read_bill(file: BinaryIO, *, day: date, seller_id: str = "") -> AsyncIterator[StatementEntry]:
    """Everything that was paid or refunded on this day in Shanghai; the file is the caller's to close.

    Raises OutcomeUnknown: before the first entry when the archive is cut short, changed or about another day or
    seller; at a line that cannot be told for certain; after the last entry when the sums do not agree.
    """
    try:
        async for entry in in_batches(entries_of(file, day=day, seller_id=seller_id), UnreadableBill):
            yield entry
    except UnreadableBill as error:
        raise OutcomeUnknown(f"the bill cannot be read: {error}") from error


def entries_of(file: BinaryIO, *, day: date, seller_id: str = "") -> Iterator[StatementEntry]:
    """As `read_bill`, in this thread. Raises UnreadableBill."""
    if not is_archive(file):
        raise UnreadableBill("it is no archive")
    if file.seek(0, io.SEEK_END) > ARCHIVE_BYTES_MAX:
        raise UnreadableBill("an archive larger than any")
    try:
        with zipfile.ZipFile(cast(BinaryIO, _Bounded(file))) as archive:
            entry, encoding = _trade_detail(archive)
            _check(archive, entry)
            with _opened(archive, entry) as content:
                yield from rows_of(_lines(content), encoding, day=day, seller_id=seller_id)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        # All that zipfile raises for bytes that lie (of a list of entries, an encryption, a packing). Not its text: it
        # may hold names from the archive.
        raise UnreadableBill(f"the archive is damaged: {type(error).__name__}") from None


class _Bounded:
    """The file as zipfile sees it: in parts no larger than a bill needs, whatever the archive says of itself.

    zipfile reads the list of entries into memory at once, however long it claims to be.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        part = self._read(READ_AT_ONCE_MAX + 1 if size < 0 else min(size, READ_AT_ONCE_MAX + 1))
        if len(part) > READ_AT_ONCE_MAX:
            raise UnreadableBill("a list of entries longer than any")
        return part


def _trade_detail(archive: zipfile.ZipFile) -> tuple[zipfile.ZipInfo, str]:
    """The one entry that lists trades, and its encoding; sums by shop and account books may stand beside it."""
    entries = archive.infolist()
    if len(entries) > ENTRIES_MAX:
        raise UnreadableBill(f"{len(entries)} entries in one archive")
    details = []
    for entry in entries:
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in PACKED_AS:
            raise UnreadableBill("an entry that is encrypted or packed in another way")
        if entry.file_size > CONTENT_BYTES_MAX:
            raise UnreadableBill("an entry larger than any")
        with _opened(archive, entry) as content:
            first = next(_lines(content), b"").rstrip(b", \t")
        details += [(entry, encoding) for encoding in ENCODINGS if first == FIRST_LINE.encode(encoding)]
    if len(details) != 1:
        raise UnreadableBill(f"{len(details)} lists of trades in the archive")
    return details[0]


def _check(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Unpack all of it once: zipfile compares the check sum at the end. Raises what zipfile raises, too."""
    size = 0
    with archive.open(entry) as content:
        while part := content.read(PART_BYTES):
            size += len(part)
    if size != entry.file_size:
        raise UnreadableBill("the archive is damaged: an entry of another size")


def _opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> io.BufferedReader:
    """zipfile's own readline takes many times as long once it is given a bound."""
    return io.BufferedReader(cast(io.RawIOBase, archive.open(entry)), PART_BYTES)


def _lines(content: io.BufferedReader) -> Iterator[bytes]:
    """Without their ends. No byte of a character in GBK, GB18030 or UTF-8 is a line end or a comma."""
    line = content.readline(LINE_BYTES_MAX).removeprefix(BYTE_ORDER_MARK)
    while line:
        if len(line) >= LINE_BYTES_MAX - len(BYTE_ORDER_MARK):
            raise UnreadableBill("a line longer than any")
        yield line.rstrip(b"\r\n")
        line = content.readline(LINE_BYTES_MAX)
