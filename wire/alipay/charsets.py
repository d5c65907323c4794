"""The charsets of Alipay's messages: UTF-8 unless a message says otherwise, GBK for life accounts."""

from __future__ import annotations

DEFAULT_CHARSET = "utf-8"
GBK = "gbk"

_FAMILIES = {"utf-8": DEFAULT_CHARSET, "utf8": DEFAULT_CHARSET, "gbk": GBK, "gb2312": GBK, "gb18030": GBK}


def family(charset: str) -> str:
    """`utf-8` or `gbk`. Raises ValueError: the gateway knows no other."""
    try:
        return _FAMILIES[charset.strip().lower()]
    except KeyError:
        raise ValueError("neither UTF-8 nor GBK") from None


def encode(text: str, charset: str) -> bytes:
    """Raises ValueError for what GBK cannot say."""
    return text.encode(family(charset))


def decode(data: bytes, charset: str) -> str:
    """GBK is read as GB 18030, which only adds to it: nobody's rare character makes a message unreadable.

    Raises ValueError.
    """
    return data.decode("gb18030" if family(charset) == GBK else DEFAULT_CHARSET)
