"""Alipay's trade bill: what is believed of an archive, and what its rows say."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from datetime import date

import pytest

from bench import alipay_bills
from channels.alipay import bill_files, bill_rows
from channels.alipay.bill_files import entries_of, is_archive, read_bill
from channels.alipay.bill_rows import UnreadableBill
from core.errors import OutcomeUnknown
from core.money import Fen
from core.ports import StatementEntry, StatementKind
from tests.support.vectors import vectors_folder

SAMPLES = vectors_folder("alipay") / "bill"
SAMPLE_DAY = date(2019, 9, 16)
SAMPLE_SELLER = "2088021109625633"
DAY = date(2026, 5, 6)
SELLER = "2088000000000001"

HEAD = (
    "#支付宝业务明细查询",
    f"#账号：[{SELLER}0156]",
    "#起始日期：[2026年05月06日 00:00:00]   终止日期：[2026年05月07日 00:00:00]",
    "#------业务明细列表------",
)
COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)
PAID = (
    "2026050622001400000000000001\t,P1\t,交易\t,门诊缴费,2026-05-06 10:00:00,2026-05-06 10:00:08,\t,\t,\t,\t,"
    "*某(138****0000)\t,86.50,86.50,0.00,0.00,0.00,0.00,0.00,,0.00\t,0.00,\t,-0.52,0.00,备注"
)
BACK = (
    "2026050622001400000000000001\t,P1\t,退款\t,门诊缴费,2026-05-06 10:00:00,2026-05-06 23:59:59,\t,\t,\t,\t,"
    "*某(138****0000)\t,-1.50,-1.50,0.00,0.00,0.00,0.00,0.00,,0.00\t,0.00,R1\t,0.01,0.00,备注"
)
END = "#------业务明细列表结束------"
PAID_SUM = "#交易合计：1笔，商家实收共86.50元，商家优惠共0.00元"
BACK_SUM = "#退款合计：1笔，商家实收退款共-1.50元，商家优惠退款共0.00元"
MADE = "#导出时间：[2026年05月07日 05:46:49]"
BILL = (*HEAD, COLUMNS, PAID, BACK, END, PAID_SUM, BACK_SUM, MADE)


def content(lines: Iterable[str], encoding: str = "gbk", end: str = "\r\n") -> bytes:
    return "".join(line + end for line in lines).encode(encoding)


def packed(*contents: bytes, how: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for number, one in enumerate(contents):
            archive.writestr(f"{number}.csv", one)
    return file


def read(file: io.BytesIO, day: date = DAY, seller: str = SELLER) -> list[StatementEntry]:
    return list(entries_of(file, day=day, seller_id=seller))


def changed(old: str, new: str) -> tuple[str, ...]:
    assert any(old in line for line in BILL)
    return tuple(line.replace(old, new) for line in BILL)


def test_rows_say_what_was_asked_for_and_no_person() -> None:
    paid, back = read(packed(content(BILL)))
    assert paid == StatementEntry(
        kind=StatementKind.PAYMENT,
        order_no="P1",
        channel_trade_no="2026050622001400000000000001",
        amount_fen=Fen(8650),
        at=paid.at,
        state_text="交易",
    )
    assert (back.kind, back.order_no, back.refund_no, back.amount_fen) == (StatementKind.REFUND, "P1", "R1", 150)
    assert [entry.at.isoformat() for entry in (paid, back)] == [
        "2026-05-06T10:00:08+08:00",
        "2026-05-06T23:59:59+08:00",
    ]
    assert "138" not in repr((paid, back))
    assert "某" not in repr((paid, back))


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-8-sig", "utf-8"])
def test_encodings_and_line_ends(encoding: str, end: str) -> None:
    assert [entry.amount_fen for entry in read(packed(content(BILL, encoding, end)))] == [8650, 150]


def test_what_is_broken_in_free_text_stays_in_free_text() -> None:
    broken = content(BILL).replace("门诊缴费,".encode("gbk"), "门诊缴".encode("gbk") + b"\xb7,")
    assert len(read(packed(broken))) == 2


def test_a_refund_without_a_number_goes_by_the_orders() -> None:
    (_, back) = read(packed(content(changed("R1\t", "\t"))))
    assert back.refund_no == "P1"


def test_columns_are_found_by_their_names() -> None:
    def moved(line: str, extra: str) -> str:
        cells = line.split(",")
        return ",".join([extra, *cells[11:], extra, *cells[:11]])

    half_width = COLUMNS.replace("（", "(").replace("）", ")")
    lines = (*HEAD, moved(half_width, "花呗分期数"), moved(PAID, ""), moved(BACK, "3"), END, PAID_SUM, BACK_SUM)
    assert read(packed(content(lines))) == read(packed(content(BILL)))


def test_a_day_without_trades() -> None:
    nothing = (
        PAID_SUM.replace("1笔", "0笔").replace("86.50", "0.00"),
        BACK_SUM.replace("1笔", "0笔").replace("1.50", "0"),
    )
    assert read(packed(content((*HEAD, COLUMNS, END, *nothing)))) == []


@pytest.mark.parametrize(
    "cells",
    [
        {3: "CT,平扫"},
        {3: "CT,平扫", 24: "CT,平扫"},
        {3: "0.01,2026-05-06,,9.99", 24: ",,"},
        {7: "一院,东区", 10: "某,某(1)", 24: "a,b,c"},
        {18: "券,满减"},
    ],
)
def test_commas_in_text_move_no_amount(cells: dict[int, str]) -> None:
    def with_commas(line: str) -> str:
        return ",".join(cells.get(place, cell) for place, cell in enumerate(line.split(",")))

    lines = (*HEAD, COLUMNS, with_commas(PAID), with_commas(BACK), END, PAID_SUM, BACK_SUM)
    assert read(packed(content(lines))) == read(packed(content(BILL)))


@pytest.mark.parametrize("text", ["A,2026-05-06 09:00:00", "A,2026-05-06 09:00:00,2026-05-06 09:00:01", "," * 21])
def test_a_line_that_can_be_read_in_two_ways_is_not_guessed(text: str) -> None:
    rows = entries_of(packed(content((*HEAD, COLUMNS, BACK, PAID.replace("门诊缴费", text), END))), day=DAY)
    assert next(rows).amount_fen == 150
    with pytest.raises(UnreadableBill, match="row 2"):
        next(rows)


def test_commas_anywhere_give_the_truth_or_nothing() -> None:
    """Whatever stands in the texts, cells that look like other columns included."""
    chance = random.Random(1)
    pieces = ["", "0.00", "12", "CT", "交易", "退款", "2026-05-06 10:00:00", "\t", "-1.50", "R9"]
    told = 0
    for _ in range(300):
        texts = {place: ",".join(chance.choices(pieces, k=chance.randint(1, 3))) for place in (3, 7, 10, 18, 24)}
        line = ",".join(texts.get(place, cell) for place, cell in enumerate(BACK.split(",")))
        sums = (PAID_SUM.replace("1笔", "0笔").replace("86.50", "0.00"), BACK_SUM)
        try:
            (entry,) = read(packed(content((*HEAD, COLUMNS, line, END, *sums))))
        except UnreadableBill:
            continue
        told += 1
        assert (entry.amount_fen, entry.refund_no, entry.at.minute) == (150, "R1", 59)
    assert told > 50


UNREADABLE_ROWS = [
    ("\t,交易", "\t,转账"),
    (",86.50,86.50", ",86.505,86.50"),
    (",86.50,86.50", ",much,86.50"),
    (",86.50,86.50", ",-86.50,86.50"),
    (",86.50,86.50", ",,86.50"),
    (",-1.50,-1.50", ",1.50,-1.50"),
    (",-0.52,", ",-0.525,"),
    ("10:00:08", "10:00"),
    ("2026-05-06 10:00:08", "2026-13-06 10:00:08"),
    ("2026050622001400000000000001\t", "2.02605E+27"),
    ("P1\t", "P 1"),
    ("0.00,\t,-0.52", "0.00,R7\t,-0.52"),
    ("0.00,备注", "0.00"),
    ("商户订单号", "订单号"),
    ("备注", "订单金额（元）"),
    ("业务明细列表结束", "别的"),
    ("交易合计", "合计"),
    ("交易合计：1笔", "交易合计：2笔"),
    ("退款合计：1笔", "退款合计：0笔"),
    ("实收共86.50", "实收共86.51"),
    ("实收共86.50", "实收共8.6.5"),
    ("退款共-1.50", "退款共1.50"),
    ("优惠共0.00", "优惠共0.01"),
    ("#导出时间", "导出时间"),
    ("终止日期：[2026年05月07日", "终止日期：[2026年06月01日"),
    ("账号：[2088", "账号：[2089"),
    ("#支付宝业务明细查询", "#支付宝账务明细查询"),
]


@pytest.mark.parametrize(("old", "new"), UNREADABLE_ROWS)
def test_what_does_not_add_up_is_unreadable_and_shows_no_person(old: str, new: str) -> None:
    with pytest.raises(UnreadableBill) as raised:
        read(packed(content(changed(old, new))))
    assert "138" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("count", range(len(BILL) - 1))
def test_a_file_that_ends_early_is_unreadable(count: int) -> None:
    with pytest.raises(UnreadableBill):
        read(packed(content(BILL[:count])))


def test_feet_of_files_saved_again_carry_commas() -> None:
    lines = [line + "," * 24 if line.startswith("#") else line for line in (*BILL, "#", "")] + ["," * 24]
    assert len(read(packed(content(lines, "utf-8-sig")))) == 2


async def given(file: io.BytesIO, into: list[StatementEntry]) -> None:
    async for entry in read_bill(file, day=DAY, seller_id=SELLER):
        into.append(entry)


async def test_wrong_sums_are_said_after_the_last_row_and_a_damaged_archive_before_the_first() -> None:
    rows: list[StatementEntry] = []
    with pytest.raises(OutcomeUnknown, match="2 rows"):
        await given(packed(content(changed("交易合计：1笔", "交易合计：2笔"))), rows)
    assert [entry.amount_fen for entry in rows] == [8650, 150]
    file = packed(content(BILL), how=zipfile.ZIP_STORED)
    whole = file.getvalue()
    rows.clear()
    with pytest.raises(OutcomeUnknown, match="damaged"):
        await given(io.BytesIO(whole.replace(b"86.50,86.50", b"86.50,86.51")), rows)
    assert rows == []
    await given(file, rows)
    assert [entry.amount_fen for entry in rows] == [8650, 150]


def test_what_is_no_archive() -> None:
    page = io.BytesIO(b"<html>expired</html>")
    assert not is_archive(page)
    with pytest.raises(UnreadableBill, match="no archive"):
        read(page)
    assert is_archive(packed(content(BILL)))
    for file in (page, io.BytesIO(), packed(), packed(b"hello"), packed(content(BILL), content(BILL))):
        with pytest.raises(UnreadableBill):
            read(file)


def test_any_damage_is_unreadable_or_without_effect() -> None:
    whole = packed(content(["#支付宝业务汇总查询"]), content(BILL)).getvalue()
    expected, chance = read(io.BytesIO(whole)), random.Random(2)
    for cut in range(0, len(whole), 7):
        with pytest.raises(UnreadableBill):
            read(io.BytesIO(whole[:cut]))
    refused = 0
    for _ in range(400):
        spoilt = bytearray(whole)
        spoilt[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        try:
            assert read(io.BytesIO(spoilt)) == expected
        except UnreadableBill:
            refused += 1
    assert refused > 300


def claims(offset: int, layout: str, value: int) -> Callable[[bytes], bytes]:
    """Change a field of the first entry in the archive's list."""

    def change(whole: bytes) -> bytes:
        spoilt = bytearray(whole)
        struct.pack_into(layout, spoilt, whole.rindex(b"PK\x01\x02") + offset, value)
        return bytes(spoilt)

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (claims(8, "<H", 1), "encrypted"),
        (claims(10, "<H", zipfile.ZIP_LZMA), "packed in another way"),
        (claims(24, "<L", 0xFFFFFFF0), "damaged"),
        (lambda whole: whole[:-10] + struct.pack("<LLH", 1 << 20, 0, 0), "damaged"),
    ],
    ids=["encrypted", "another packing", "another size", "a list longer than the file"],
)
def test_what_an_archive_claims_is_bounded(change: Callable[[bytes], bytes], match: str) -> None:
    with pytest.raises(UnreadableBill, match=match):
        read(io.BytesIO(change(packed(content(BILL)).getvalue())))


def test_bombs_are_refused_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = packed(content(HEAD) + b"0" * (6 << 20))
    many = packed(*[b""] * 5000)
    tracemalloc.start()
    try:
        for file, match in ((endless, "a line longer"), (many, "list of entries longer"), (packed(*[b""] * 17), "17")):
            with pytest.raises(UnreadableBill, match=match):
                read(file)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(bill_files, "CONTENT_BYTES_MAX", 5 << 20)
    with pytest.raises(UnreadableBill, match="an entry larger"):
        read(endless)
    monkeypatch.setattr(bill_files, "ARCHIVE_BYTES_MAX", 64)
    with pytest.raises(UnreadableBill, match="an archive larger"):
        read(packed(content(BILL)))


def test_a_long_bill_needs_no_more_memory_than_a_short_one() -> None:
    """The bench's file, whose names and remarks hold commas now and then."""
    peaks = []
    for lines in (300, 1500):
        file = io.BytesIO()
        alipay_bills.write_bill(file, lines, comma_every=7)
        bill_rows._fen.cache_clear()
        tracemalloc.start()
        refunds = sum(
            entry.kind is StatementKind.REFUND
            for entry in entries_of(file, day=alipay_bills.DAY, seller_id=alipay_bills.SELLER_ID)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert refunds == lines // alipay_bills.REFUND_EVERY
    assert peaks[1] - peaks[0] < 1 << 20


def test_the_public_samples() -> None:
    sample = SAMPLES / "20880211096256330156_20190916.csv.zip"
    files = [io.BytesIO(sample.read_bytes())]
    for name in ("business_detail_20190916.utf8.csv", "business_detail_20190916.gbk.csv"):
        summary = (SAMPLES / "business_summary_20190916.utf8.csv").read_bytes()
        files.append(packed(summary, (SAMPLES / name).read_bytes()))
    read_ones = [read(file, SAMPLE_DAY, SAMPLE_SELLER) for file in files]
    assert read_ones[0] == read_ones[1] == read_ones[2]
    entries = read_ones[0]
    assert [entry.kind for entry in entries].count(StatementKind.PAYMENT) == 6
    assert {entry.amount_fen for entry in entries} == {1}
    assert [entry.refund_no for entry in entries if entry.refund_no] == [
        "re_test_1568602607356",
        "re_test_1568604414433",
        "re_test_1568614511552",
        "re_20190916150216125q8Lmiodp",
    ]
    empty = packed((SAMPLES / "business_detail_empty_day.utf8.csv").read_bytes())
    assert read(empty, SAMPLE_DAY, SAMPLE_SELLER) == []
    for name in ("account_detail_20121229.gbk.csv", "business_summary_20190916.utf8.csv"):
        with pytest.raises(UnreadableBill, match="0 lists"):
            read(packed((SAMPLES / name).read_bytes()), SAMPLE_DAY, SAMPLE_SELLER)
