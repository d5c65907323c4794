"""Labels for paper prescriptions, 60 × 40 mm: the address as a QR code, the bill's number as Code 128. Pure.

For hospitals whose HIS cannot print a code: the label is stuck to the paper. Pictures are SVG, in millimetres,
without a font or file from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import barcode  # type: ignore[import-untyped]
import segno
from barcode.errors import BarcodeError  # type: ignore[import-untyped]

from core.paper import PrintedPaper
from core.texts import LABEL_TEXTS

WIDTH_MM, HEIGHT_MM = 60, 40
QR_MM, QR_X_MM, QR_Y_MM = 24.0, 3.0, 2.5
TEXT_X_MM, TEXT_WIDTH_MM = 30.0, 28.0
QR_QUIET_MODULES, BARCODE_QUIET_MODULES = 4, 10
BARCODE_Y_MM, BARCODE_HEIGHT_MM, NUMBER_WIDTH_MM = 29.5, 6.0, 56.0
MODULE_MM_MIN = 0.17
"""A narrower bar is not read from a label printer's paper: then the number stands there as text alone."""

FONTS = "'Noto Sans CJK SC','Source Han Sans SC','Microsoft YaHei','SimHei',sans-serif"


def qr_svg(url: str, *, size_mm: float = QR_MM) -> str:
    """The address as a picture of its own, with the quiet zone that a scanner needs."""
    rows = _qr_rows(url)
    side = len(rows) + 2 * QR_QUIET_MODULES
    return _svg(size_mm, size_mm, side, side, f'<g fill="#000">{_path(rows, QR_QUIET_MODULES, QR_QUIET_MODULES)}</g>')


def barcode_svg(his_bill_id: str) -> str:
    """The bill's number as Code 128; empty for a number that Code 128 has no signs for, or that is too long."""
    bars = _bars(his_bill_id)
    if not bars:
        return ""
    width = len(bars) + 2 * BARCODE_QUIET_MODULES
    drawn = f'<g fill="#000" transform="scale(1 {width / 10:g})">{_path([bars], BARCODE_QUIET_MODULES, 0)}</g>'
    return _svg(WIDTH_MM, WIDTH_MM / 10, width, width / 10, drawn)


def label_svg(paper: PrintedPaper, *, language: str = "zh") -> str:
    """The whole label."""
    rows = _qr_rows(paper.url)
    day = f"{paper.issued_on:%Y-%m-%d}" if paper.issued_on else ""
    place = f"translate({QR_X_MM:g} {QR_Y_MM:g}) scale({QR_MM / len(rows):.5f})"
    parts = [
        f'<g fill="#000" transform="{place}">{_path(rows, 0, 0)}</g>',
        _text(paper.hospital, y=6, size=3.4),
        _text(LABEL_TEXTS["title"][language], y=11.5, size=4, weight="bold"),
        _text(paper.masked_name, y=16.5, size=3.4),
        _text(day, y=21, size=3),
        _text(LABEL_TEXTS["scan"][language], y=26, size=3.4, weight="bold"),
    ]
    bars = _bars(paper.his_bill_id)
    if bars:
        place = f"translate(0 {BARCODE_Y_MM:g}) scale({_module_mm(bars):.5f} {BARCODE_HEIGHT_MM:g})"
        parts.append(f'<g fill="#000" transform="{place}">{_path([bars], BARCODE_QUIET_MODULES, 0)}</g>')
    parts.append(_text(paper.his_bill_id, y=38.5, size=2.4, x=2, width=NUMBER_WIDTH_MM))
    return _svg(WIDTH_MM, HEIGHT_MM, WIDTH_MM, HEIGHT_MM, "".join(parts))


def label_page(paper: PrintedPaper, *, language: str = "zh") -> str:
    """The label as a page that a browser prints on one label of the roll."""
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8">'
        f"<title>{escape(LABEL_TEXTS['title'][language])}</title>"
        f"<style>@page{{size:{WIDTH_MM}mm {HEIGHT_MM}mm;margin:0}}body{{margin:0}}svg{{display:block}}</style>"
        f"{label_svg(paper, language=language)}</html>\n"
    )


def _qr_rows(url: str) -> list[Sequence[int]]:
    return [bytes(row) for row in segno.make_qr(url, error="m").matrix]


def _bars(his_bill_id: str) -> Sequence[int]:
    """Dark (1) and light (0) modules; empty when the number cannot be printed so that it is read."""
    try:
        (line,) = barcode.get_barcode_class("code128")(his_bill_id).build()
    except BarcodeError:
        return ()
    bars = [int(module) for module in line]
    return bars if _module_mm(bars) >= MODULE_MM_MIN else ()


def _module_mm(bars: Sequence[int]) -> float:
    """How wide the narrowest bar is, where the code fills the label with its quiet zones."""
    return WIDTH_MM / (len(bars) + 2 * BARCODE_QUIET_MODULES)


def _path(rows: Iterable[Sequence[int]], left: int, top: int) -> str:
    """Runs of dark modules, each a rectangle of one row."""
    drawn = []
    for y, row in enumerate(rows):
        x = 0
        while x < len(row):
            run = next((end for end in range(x, len(row)) if not row[end]), len(row)) - x
            if run:
                drawn.append(f"M{left + x} {top + y}h{run}v1h-{run}z")
            x += max(run, 1)
    return f'<path shape-rendering="crispEdges" d="{"".join(drawn)}"/>'


def _text(
    text: str, *, y: float, size: float, x: float = TEXT_X_MM, width: float = TEXT_WIDTH_MM, weight: str = "normal"
) -> str:
    """One line, pressed together where it would not fit."""
    expected = sum(size if ord(sign) > 0xFF else size * 0.6 for sign in text)
    fit = f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"' if expected > width else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" font-family="{FONTS}"{fit}>'
        f"{escape(text)}</text>"
    )


def _svg(width_mm: float, height_mm: float, width: float, height: float, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width_mm:g}mm" height="{height_mm:g}mm"'
        f' viewBox="0 0 {width:g} {height:g}"><rect width="100%" height="100%" fill="#fff"/>{content}</svg>'
    )
