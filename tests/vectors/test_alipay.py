"""Our Alipay signatures, envelopes, certificates and ciphers against what others published, and what they derived."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1

from core.ports import Unverified
from tests.support.vectors import all_vector_folders, read_vectors, vectors_folder
from wire.alipay.certificates import certificate_sn, root_cert_sn, split_bundle
from wire.alipay.charsets import encode
from wire.alipay.encryption import decrypt, encrypt, open_content, open_page_answer, read_aes_key
from wire.alipay.envelope import Envelope, NotBelieved, check_content, read_envelope
from wire.alipay.requests import encode_request
from wire.alipay.signing import FormRule, is_signed, read_signed_form, request_message, sign_text
from wire.keys import SigningKey, VerificationKey, read_private_key, read_public_key

PARTS = {
    "request_signatures.json": 10,
    "response_signatures.json": 17,
    "response_extraction.json": 14,
    "notify_signatures.json": 12,
    "aes.json": 4,
    "cert_sn.json": 12,
    "life_account.json": 4,
    "samples_unverified.json": 8,
}
"""File → cases checked here; of life_account.json the signatures of the replies."""

LATER = {
    "bill/*": "statements",
    "v3_signatures.json": "the REST interface, which we do not speak",
}

KEYS: dict[str, dict[str, str]] = read_vectors("alipay", "keys/keys.json")
RULES = {"V1": FormRule.NOTICE, "V2": FormRule.PUSH}


def cases(name: str) -> list[dict[str, Any]]:
    read = read_vectors("alipay", name)
    found: list[dict[str, Any]] = read["cases"] if isinstance(read, dict) else read
    assert len(found) == PARTS[name]
    return found


def file_text(name: str) -> str:
    return (vectors_folder("alipay") / name).read_text()


def key_of(name: str) -> tuple[VerificationKey, ...]:
    known = KEYS[name]
    if "certificate_file" in known:
        key = split_bundle(file_text(known["certificate_file"]), name=name)[0].public_key()
        return (VerificationKey(name, key),)  # type: ignore[arg-type]
    return (VerificationKey(name, read_public_key(known["public_spki_b64"], name=name)),)


def signing_key(name: str, form: str = "private_pkcs8_b64") -> SigningKey:
    return SigningKey("", read_private_key(KEYS[name][form], name=name))


def believed(body: bytes, method: str, charset: str, keys: Iterable[VerificationKey]) -> Envelope:
    envelope = read_envelope(body, method, charset)
    check_content(envelope.content, envelope.sign, keys)
    return envelope


def method_of(node: str) -> str:
    return "alipay.system.oauth.token" if node == "error_response" else node[: -len("_response")].replace("_", ".")


def named(found: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", found, ids=[case.get("id") or case["file"] for case in found])


@named(cases("request_signatures.json"))
def test_requests_are_signed_as_published(case: Mapping[str, Any]) -> None:
    message = request_message(case["params"], case["charset"])
    assert message == encode(case["string_to_sign"], case["charset"])
    if case["digest"] == "SHA1":
        (key,) = key_of(case["key"])
        key.public_key.verify(base64.b64decode(case["sign"]), message, PKCS1v15(), SHA1())  # noqa: S303 - it is right …
        assert not is_signed([key], message, case["sign"])  # … and proves nothing
        return
    assert is_signed(key_of(case["key"]), message, case["sign"])
    if "query_string" not in case:
        return
    for form in ("private_pkcs8_b64", "private_pkcs1_b64"):
        assert sign_text(signing_key(case["key"], form), message) == case["sign"]
    sent = encode_request(case["params"], case["sign"])
    if case["body"]:
        assert sorted(sent.query.split("&")) == sorted(case["query_string"].split("&"))
        assert sent.body == case["body"]
    else:  # there it sends everything in the address; we keep somebody's code out of it
        assert sorted(f"{sent.query}&{sent.body}".split("&")) == sorted(case["query_string"].split("&"))
        assert "code" not in dict(parse_qsl(sent.query))


@named(cases("response_signatures.json"))
def test_answers_are_verified_as_published(case: Mapping[str, Any]) -> None:
    charset, keys = case.get("charset", "utf-8"), key_of(case["key"])
    content = encode(case["signed_content"], charset)
    if "raw_body" not in case and "raw_body_base64" not in case:
        check_content(content, case["sign"], keys)
        return
    body = base64.b64decode(case["raw_body_base64"]) if "raw_body_base64" in case else case["raw_body"].encode()
    method = method_of(case["node"])
    if case["expected"] is False:
        with pytest.raises(NotBelieved):
            believed(body, method, charset, keys)
        return
    envelope = believed(body, method, charset, keys)
    assert (envelope.node, envelope.content, envelope.sign) == (case["node"], content, case["sign"])
    if envelope.is_encrypted:
        key = read_aes_key("aa4BtZ4tspm2wnXLb1ThQA==", name="key")
        assert open_content(envelope.content, key)["trade_no"] == "2026011522001400001000000001"


@named(cases("response_extraction.json"))
def test_what_is_signed_is_found_as_published(case: Mapping[str, Any]) -> None:
    method = method_of(case["node"])
    assert read_envelope(case["raw_body"].encode(), method).content == case["expected_signed_content"].encode()


@named(cases("notify_signatures.json"))
def test_forms_are_verified_as_published(case: Mapping[str, Any]) -> None:
    charset, keys = case.get("charset", "utf-8"), key_of(case["key"])
    body = case.get("form_body") or urlencode(case["params"], encoding=charset)
    form = read_signed_form(body.encode(), RULES[case["rule"]], keys)
    if case["expected"]:
        assert form == case["params"]
    else:
        assert form == Unverified(reason="its signature is wrong")
    (other,) = set(FormRule) - {RULES[case["rule"]]}
    assert isinstance(read_signed_form(body.encode(), other, keys), Unverified)


@named(cases("aes.json"))
def test_ciphers_open_as_published(case: Mapping[str, Any]) -> None:
    key = read_aes_key(case["key_b64"], name="key")
    assert decrypt(key, case["cipher_b64"]).decode() == case["plain"]
    assert encrypt(key, case["plain"].encode()) == case["cipher_b64"]
    if "sign" in case:
        handed = case["get_phone_number_result"]
        assert open_page_answer(handed, key_of(case["key"]), key) == json.loads(case["plain"])
        assert not is_signed(key_of(case["key"]), case["cipher_b64"].encode(), case["sign"])
        with pytest.raises(NotBelieved, match="wrong"):
            open_page_answer(handed, key_of("demo_app"), key)


@named(cases("cert_sn.json"))
def test_certificates_are_numbered_as_published(case: Mapping[str, Any]) -> None:
    bundle = file_text(case["file"])
    if case["kind"].startswith("alipay_root_cert_sn"):
        assert root_cert_sn(bundle, name="roots") == case["expected"]
    else:
        assert certificate_sn(split_bundle(bundle, name="it")[0]) == case["expected"]


@named(read_vectors("alipay", "life_account.json")["signed_replies"])
def test_replies_of_a_life_account_are_signed_as_published(case: Mapping[str, Any]) -> None:
    message = encode(case["signed_content"], case["charset"])
    assert f"<sign>{sign_text(signing_key(case['key']), message)}</sign>" in case["expected_xml"]


def test_samples_without_a_signature_prove_nothing() -> None:
    samples = read_vectors("alipay", "samples_unverified.json")
    keys = [key for name in KEYS for key in key_of(name)]
    for sample in samples["responses"]:
        (node,) = (name for name in sample["body"] if name.endswith("_response"))
        envelope = read_envelope(json.dumps(sample["body"]).encode(), method_of(node))
        assert envelope.cert_sn == sample["body"].get("alipay_cert_sn", "")
        with pytest.raises(NotBelieved, match="not signed"):
            check_content(envelope.content, envelope.sign, keys)
    for sample in samples["notifies"]:
        body = "&".join(f"{name}={quote_plus(value)}" for name, value in sample["params"].items())
        form = read_signed_form(body.encode(), FormRule.NOTICE, keys)
        assert form == Unverified(reason="its signature is wrong")
    assert len(samples["responses"]) + len(samples["notifies"]) == PARTS["samples_unverified.json"]


@pytest.mark.parametrize("folder", all_vector_folders("alipay"), ids=lambda folder: folder.parent.name)
def test_every_file_is_checked_or_said_to_come_later(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".zip")}
    named_files = {*PARTS, "keys/keys.json"}
    missed = {file for file in files - named_files if not any(Path(file).match(pattern) for pattern in LATER)}
    assert missed == set()
    assert named_files <= files
    certificates = {f"certs/{path.name}" for path in (folder / "certs").iterdir()}
    for file in named_files | certificates:
        assert (folder / file).read_bytes() == (vectors_folder("alipay") / file).read_bytes()
    with capsys.disabled():
        print(f"\nAlipay vectors: {sum(PARTS.values())} cases in {len(PARTS)} files; later: {LATER}")
