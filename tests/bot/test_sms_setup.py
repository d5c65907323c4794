"""An SMS account in the setup file: the sample's own lines, and mistakes in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from runtime.setup_file import read_file

SAMPLE = Path(__file__).parents[2] / "docs" / "setup-example.toml"
KEY = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An institution with the sample's SMS account, its lines made valid as the sample says."""
    text = SAMPLE.read_text(encoding="utf-8")
    block = text[text.index("# [[chat]]") : text.index("# --- ways of paying")]
    lines = [re.sub(r"^# ?", "", line) for line in block.splitlines()]
    (tmp_path / "sms.key").write_text(KEY + "\n")
    file = tmp_path / "renhe.toml"
    file.write_text(
        '[institution]\ncode = "renhe"\nname_zh = "仁和医院"\n\n' + "\n".join(lines) + "\n", encoding="utf-8"
    )
    return file


def test_the_samples_lines_are_an_sms_account(file: Path) -> None:
    (chat,) = read_file(file).chats
    assert (chat.platform, chat.app_id) == ("sms", "1400006666")
    assert chat.params["secret_key"] == KEY
    assert KEY not in repr(chat)
    assert {kind: json.loads(text) for kind, text in chat.templates.items()} == {
        "paid": {"id": "1110", "params": ["title", "amount", "note"]},
        "phone_code": {"id": "1111", "params": ["code", "=5"]},
    }


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('secret_key = "file:sms.key"', "", "chat 1: chat account sms 1400006666: secret_key missing"),
        ('secret_key = "file:sms.key"', 'secret_key = "file:lost"', "chat 1.params.secret_key: lost cannot be read"),
        ('"仁和医院"            #', '"【仁和医院】" #', "sign_name is the approved sign alone, without 【】"),
        ('platform = "sms"', 'platform = "fax"', "platform is one of wechat_service, wechat_miniprogram, sms"),
        ('"1400006666"', '"wx1111111111111111"', "app_id (or sdk_app_id) is the SdkAppId, digits only"),
        ('params = ["code", "=5"]', 'params = ["=5"]', "template phone_code needs an id (digits) and params"),
        ('"title", "amount"', '"title", "sum"', "(unknown_field_sum)"),
        ("[chat.templates.paid]", "[chat.templates.chat_answer]", "there is no message 'chat_answer'"),
    ],
)
def test_a_mistake_is_one_clear_line(file: Path, old: str, new: str, problem: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_file(file)
    assert any(problem in line for line in str(caught.value).splitlines()), str(caught.value)
    assert KEY not in str(caught.value)
