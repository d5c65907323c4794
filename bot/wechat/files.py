"""The files by which WeChat proves that a domain is ours: at `/<name>.txt`, and at `/p/<name>.txt` for a link rule.

Names and contents are params of the accounts (`verify_file_name`, `verify_file_text`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, raw

from bot.wechat.params import FILE_NAME, FILE_TEXT
from core.clock import Clock
from core.institutions import Institutions

PAPERS = "/p/"
"""The directory of the addresses on papers: a rule that opens the mini program for them wants its file there."""

KEPT_FOR = timedelta(seconds=10)
"""A stranger who asks for names makes us look at the accounts no more often than this."""


class VerificationFiles:
    def __init__(self, institutions: Institutions, clock: Clock) -> None:
        self._institutions = institutions
        self._clock = clock
        self._files: dict[str, str] = {}
        self._looked_at: datetime | None = None

    async def text(self, name: str) -> str:
        """What stands in the file of this name; empty when no account has one."""
        now = self._clock.now()
        if self._looked_at is None or not self._looked_at <= now < self._looked_at + KEPT_FOR:
            self._looked_at = now
            self._files = await self._read()
        return self._files.get(name, "")

    async def _read(self) -> dict[str, str]:
        pairs = [
            (account.params.get("verify_file_name", "").strip(), account.params.get("verify_file_text", "").strip())
            for account in await self._institutions.all_chat_accounts()
        ]
        return {name: text for name, text in pairs if FILE_NAME.fullmatch(name) and FILE_TEXT.fullmatch(text)}


def blueprint(files: VerificationFiles) -> Blueprint:
    wechat = Blueprint("wechat_files")

    @wechat.get(f"/<name:{FILE_NAME.pattern}>")
    @wechat.get(f"{PAPERS}<name:{FILE_NAME.pattern}>", name="file_of_rule")
    async def file(request: Request, name: str) -> HTTPResponse:
        text = await files.text(name)
        return raw(text.encode(), status=200 if text else 404, content_type="text/plain")

    return wechat
