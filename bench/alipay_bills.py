"""A day of trades as Alipay's bill lists them, of any length, made in seconds; by itself it measures our reader.

python -m bench.alipay_bills 1000000            how long our reader takes, and what memory
python -m bench.alipay_bills 1000000 bill.zip   writes the file alone
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
import zipfile
from datetime import date, timedelta
from typing import BinaryIO

from channels.alipay.bill_files import entries_of
from core.money import Fen, yuan_text

DAY = date(2026, 5, 6)
SELLER_ID = "2088021109625633"
REFUND_EVERY = 10
LINES_AT_ONCE = 10_000
HEAD = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def write_bill(into: BinaryIO, lines: int, *, comma_every: int = 0) -> None:
    """An archive whose every tenth line is a refund; with `comma_every`, every so many names hold a comma."""
    totals = {"交易": [0, 0], "退款": [0, 0]}
    with (
        zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{SELLER_ID}0156_{DAY:%Y%m%d}.csv", "w", force_zip64=True) as entry,
        io.TextIOWrapper(entry, "gb18030", newline="") as text,
    ):
        text.write(
            f"#支付宝业务明细查询\r\n#账号：[{SELLER_ID}0156]\r\n#起始日期：[{DAY:%Y年%m月%d日} 00:00:00]   "
            f"终止日期：[{DAY + timedelta(days=1):%Y年%m月%d日} 00:00:00]\r\n#-----业务明细列表-----\r\n{HEAD}\r\n"
        )
        for begin in range(0, lines, LINES_AT_ONCE):
            rows = []
            for number in range(begin, min(begin + LINES_AT_ONCE, lines)):
                fen = 1 + number * 7919 % 30_000
                is_refund = number % REFUND_EVERY == REFUND_EVERY - 1
                total = totals["退款" if is_refund else "交易"]
                total[0] += 1
                total[1] += -fen if is_refund else fen
                rows.append(_row(number, fen, is_refund, bool(comma_every) and number % comma_every == 0))
            text.write("".join(rows))
        (paid, paid_fen), (back, back_fen) = totals.values()
        text.write(
            f"#-----业务明细列表结束-----\r\n#交易合计：{paid}笔，商家实收共{yuan_text(Fen(paid_fen))}元，商家优惠共0.00元\r\n"
            f"#退款合计：{back}笔，商家实收退款共{yuan_text(Fen(back_fen))}元，商家优惠退款共0.00元\r\n"
            "#导出时间：[2026年05月07日 05:46:49]\r\n"
        )


def _row(number: int, fen: int, is_refund: bool, has_comma: bool) -> str:
    # The last of an order's ten lines gives something of it back.
    amount = f"{'-' if is_refund else ''}{fen // 100}.{fen % 100:02d}"
    minute = number // 60 % 1440
    at = f"{DAY.isoformat()} {minute // 60:02d}:{minute % 60:02d}:{number % 60:02d}"
    name = "门诊缴费,检查" if has_comma else "门诊缴费"
    return (
        f"20260506220014{number - is_refund:014d}\t,P{number - is_refund:025d}\t,{'退款' if is_refund else '交易'}\t,"
        f"{name},{at},{at},\t,\t,\t,\t,*某(138****{number % 10_000:04d})\t,{amount},{amount},0.00,0.00,0.00,0.00,0.00,,"
        f"0.00\t,0.00,{f'R{number:025d}' if is_refund else chr(9)},-0.01,0.00,{name}\r\n"
    )


def main() -> int:
    lines = int(sys.argv[1])
    if len(sys.argv) > 2:
        with open(sys.argv[2], "wb") as file:
            write_bill(file, lines)
        return 0
    with tempfile.TemporaryFile() as kept:
        began = time.perf_counter()
        write_bill(kept, lines)
        made, before_kib = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        processor = time.process_time()
        count = sum(1 for _ in entries_of(kept, day=DAY, seller_id=SELLER_ID))
        seconds, processor = time.perf_counter() - made, time.process_time() - processor
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{count} rows, archive {kept.seek(0, io.SEEK_END) / 1e6:.1f} MB, made in {made - began:.1f} s")
        print(f"read in {seconds:.2f} s, {processor:.2f} s of a processor")
        print(f"peak memory {kib / 1024:.0f} MiB, {(kib - before_kib) / 1024:.1f} MiB of it while reading")
    return 0 if count == lines else 1


if __name__ == "__main__":
    sys.exit(main())
