"""What the pages load: two style sheets and small scripts, with addresses that change with their content."""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

log = logging.getLogger("zhenfu.api")

FOLDER = Path(__file__).parent / "static"
PREFIX = "/h5/static"
FILES = ("vendor/weui.min.css", "h5.css", "wait.js", "pay.js", "scan.js")
DIGEST_LENGTH = 12
CONTENT_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file, as it is and packed for slow networks."""

    digest: str
    content_type: str
    body: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class Assets:
    files: Mapping[str, Asset]  # by name, without folder

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Self:
        """A style that nobody has installed is left out: the pages can be read and used without it."""
        files = {}
        for path in (folder / name for name in FILES):
            if not path.exists():
                log.warning("page_asset_missing", extra={"fields": {"file": path.name}})
                continue
            body = path.read_bytes()
            files[path.name] = Asset(
                digest=hashlib.sha256(body).hexdigest()[:DIGEST_LENGTH],
                content_type=CONTENT_TYPES[path.suffix],
                body=body,
                packed=gzip.compress(body, mtime=0),
            )
        return cls(files)

    def url(self, name: str) -> str:
        """Where the file is now; empty when it is not there."""
        asset = self.files.get(name)
        return f"{PREFIX}/{asset.digest}/{name}" if asset is not None else ""
