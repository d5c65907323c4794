"""A label is read by a scanner: what is drawn is rasterised and decoded by other people's code."""

from __future__ import annotations

import io
import re
from datetime import date
from xml.etree import ElementTree as ET

import pytest
import resvg_py
import zxingcpp
from PIL import Image

from core.paper import PrintedPaper, paper_token
from miniprogram_api.labels import barcode_svg, label_page, label_svg, qr_svg

URL = "https://pay.hospital.example/p/Zk3xQ0v9sJ2mT7bW1cY5dA"
LONG_URL = "https://pay.hospital.example/p/" + paper_token(b"k" * 32, "renhe", "东院区", "CF" + "2026050600012345" * 3)
BILL = "CF2026050600012345"
MM_PER_INCH = 25.4
DOTS_PER_MM = 8  # a label printer of 203 dpi


def a_paper(**changes: object) -> PrintedPaper:
    values = {
        "hospital": "仁和医院",
        "url": URL,
        "his_bill_id": BILL,
        "masked_name": "王*兰",
        "issued_on": date(2026, 5, 6),
        **changes,
    }
    return PrintedPaper(**values)  # type: ignore[arg-type]


def read(svg: str, *, dots_per_mm: float = DOTS_PER_MM) -> dict[str, str]:
    """Every code in the picture as a printer would print it: format → content."""
    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, dpi=dots_per_mm * MM_PER_INCH))))
    margin = Image.new("L", (picture.width + 40, picture.height + 40), 255)
    margin.paste(picture.convert("L"), (20, 20))
    return {str(code.format).replace(" ", ""): code.text for code in zxingcpp.read_barcodes(margin)}


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  # we have written it ourselves


def texts_of(svg: str) -> list[str]:
    return [text for text in parsed(svg).itertext() if text.strip()]


def found(codes: dict[str, str], name: str) -> str:
    return next((text for format_, text in codes.items() if name.lower() in format_.lower()), "")


@pytest.mark.parametrize("url", [URL, LONG_URL])
@pytest.mark.parametrize("bill", [BILL, "1", "1234567890123456", "MZ-2026_05", "CF" + "20260506" * 4])
def test_both_codes_of_a_label_are_read_as_a_printer_prints_them(url: str, bill: str) -> None:
    codes = read(label_svg(a_paper(url=url, his_bill_id=bill)))
    assert found(codes, "qr") == url
    assert found(codes, "code128") == bill


def test_the_pictures_alone_are_read_too() -> None:
    assert found(read(qr_svg(URL)), "qr") == URL
    assert found(read(barcode_svg(BILL)), "code128") == BILL


@pytest.mark.parametrize("bill", ["处方0001", "A" * 64, "CF\t1" * 40])
def test_a_number_that_no_scanner_would_read_stands_there_as_text_alone(bill: str) -> None:
    assert barcode_svg(bill) == ""
    svg = label_svg(a_paper(his_bill_id=bill))
    codes = read(svg)
    assert (found(codes, "qr"), len(codes)) == (URL, 1)
    assert bill in "".join(parsed(svg).itertext())


def test_a_label_says_what_anybody_may_see_and_nothing_else() -> None:
    assert texts_of(label_svg(a_paper())) == ["仁和医院", "门诊缴费", "王*兰", "2026-05-06", "微信扫码缴费", BILL]
    bare = a_paper(masked_name="", issued_on=None)
    assert texts_of(label_svg(bare)) == ["仁和医院", "门诊缴费", "微信扫码缴费", BILL]
    english = label_svg(a_paper(), language="en")
    assert "Scan in WeChat to pay" in english


def test_whatever_a_name_is_the_label_stays_one_picture_of_its_size() -> None:
    paper = a_paper(
        hospital="某某省某某市第一人民医院<东院区>&互联网医院门诊部", masked_name="A*** S***", his_bill_id="<&>"
    )
    root = parsed(label_svg(paper))
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("60mm", "40mm", "0 0 60 40")
    hospital = next(element for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert (hospital.text, hospital.get("textLength")) == (paper.hospital, "28")


def test_the_page_prints_one_label_and_loads_nothing() -> None:
    page = label_page(a_paper())
    assert "@page{size:60mm 40mm;margin:0}" in page
    assert label_svg(a_paper()) in page
    assert not re.search(r"<script|src=|href=|url\(", page)
