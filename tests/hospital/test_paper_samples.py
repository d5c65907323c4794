"""The addresses that a HIS computes by itself: our code, the document, and the samples in three languages agree."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from core.paper import TOKEN_LENGTH_MAX, paper_token

DOCS = Path(__file__).parents[2] / "docs"
SAMPLES = DOCS / "samples"
FILE = json.loads((SAMPLES / "paper-vectors.json").read_text(encoding="utf-8"))
KEY, VECTORS = FILE["paper_key"], FILE["vectors"]
CHAPTER = (DOCS / "connect-a-hospital.md").read_text(encoding="utf-8").partition("\n## 10. ")[2]


def arguments(vector: dict[str, str]) -> list[str]:
    return [KEY, vector["institution"], vector["branch"], vector["bill_id"]]


def made(*command: str) -> list[str]:
    """What a sample prints for each vector."""
    return [
        subprocess.run([*command, *arguments(vector)], capture_output=True, check=True, timeout=60)
        .stdout.decode()
        .strip()
        for vector in VECTORS
    ]


TOKENS = [vector["token"] for vector in VECTORS]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_each_vector_is_what_we_compute_and_believe(vector: dict[str, str]) -> None:
    token = paper_token(KEY.encode(), vector["institution"], vector["branch"], vector["bill_id"])
    assert token == vector["token"] == f"h1.{vector['payload']}.{vector['mac']}"
    assert len(token) <= TOKEN_LENGTH_MAX


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_each_vector_is_what_the_document_says(vector: dict[str, str]) -> None:
    """RFC 2104 spelled out, without our code and without the hmac module."""
    named = "\n".join((vector["institution"], vector["branch"], vector["bill_id"])).encode()
    assert urlsafe_b64decode(vector["payload"] + "=" * (-len(vector["payload"]) % 4)) == named
    block = KEY.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + b"zhenfu-paper-1\n" + named).digest()
    seal = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()[:16]
    assert urlsafe_b64decode(vector["mac"] + "==") == seal


def test_the_vectors_are_of_every_kind() -> None:
    assert len(VECTORS) >= 6
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
    assert any(not vector["branch"] for vector in VECTORS)
    assert any(not vector["branch"].isascii() for vector in VECTORS)
    assert any(len(vector["bill_id"]) == 128 for vector in VECTORS)
    assert any(set("-_") & set(vector["mac"]) for vector in VECTORS)


def test_the_document_quotes_the_vectors() -> None:
    assert f"`{KEY}`" in CHAPTER
    quoted = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`|empty) \| `(.+?)` \| `(h1\..+?)` \|$", CHAPTER, re.MULTILINE)
    assert len(quoted) >= 3
    known = [tuple(vector[name] for name in ("institution", "branch", "bill_id", "token")) for vector in VECTORS]
    assert set(quoted) <= set(known)


def test_the_command_of_the_document_gives_the_first_vector() -> None:
    (command,) = [block for block in re.findall(r"```text\n(.*?)\n```", CHAPTER, re.DOTALL) if "openssl" in block]
    printed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout.split()
    assert printed == [VECTORS[1]["payload"], VECTORS[1]["mac"]]


def _python(folder: Path) -> list[str]:
    return [sys.executable, str(SAMPLES / "paper_token.py")]


def _java(folder: Path) -> list[str]:
    command = ["javac", "-encoding", "UTF-8", "-d", str(folder), str(SAMPLES / "PaperToken.java")]
    subprocess.run(command, check=True, timeout=120)
    # Java 17 reads its arguments in the locale's character set.
    return ["env", "LC_ALL=C.UTF-8", "java", "-cp", str(folder), "PaperToken"]


def _c_sharp(folder: Path) -> list[str]:
    program = folder / "PaperToken.exe"
    subprocess.run(["mcs", f"-out:{program}", str(SAMPLES / "PaperToken.cs")], check=True, timeout=120)
    return ["env", "LC_ALL=C.UTF-8", "mono", str(program)]


BUILDERS = {
    language: build
    for language, build, programs in (
        ("python", _python, []),
        ("java", _java, ["javac", "java"]),
        ("c_sharp", _c_sharp, ["mcs", "mono"]),
    )
    if all(shutil.which(program) for program in programs)
}
"""The languages that this computer can run; Python always, the others where a developer has them."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("language", BUILDERS)
def test_each_sample_gives_the_vectors(language: str, tmp_path: Path) -> None:
    assert made(*BUILDERS[language](tmp_path)) == TOKENS
