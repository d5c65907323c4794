"""Keys are found by exact serial, several at once; nothing of a private key is ever shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.errors import ConfigurationError
from simulators.wechatpay_keys import private_pem, public_pem, rsa_key, self_signed_certificate
from wire.keys import (
    KeyRing,
    SigningKey,
    VerificationKey,
    read_certificates,
    read_private_key,
    read_public_key,
    same_text,
)

NOW = datetime(2026, 5, 6, tzinfo=UTC)
ONE, OTHER = rsa_key("one"), rsa_key("other")


def a_certificate(serial: str, **changes: datetime) -> str:
    dates = {"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=1)} | changes
    return self_signed_certificate(ONE, serial=serial, common_name="test", **dates)


def test_what_one_key_signed_only_its_counterpart_verifies():
    signature = SigningKey("A", ONE).sign(b"message")
    assert VerificationKey("A", ONE.public_key()).verifies(b"message", signature)
    assert not VerificationKey("A", ONE.public_key()).verifies(b"massage", signature)
    assert not VerificationKey("A", ONE.public_key()).verifies(b"message", signature[:-1])
    assert not VerificationKey("A", OTHER.public_key()).verifies(b"message", signature)


def test_a_ring_finds_by_exact_serial_only():
    ring = KeyRing([VerificationKey("AB", ONE.public_key()), VerificationKey("CD", OTHER.public_key())])
    found = ring.find("AB", NOW)
    assert found is not None
    assert found.public_key is not OTHER.public_key()
    for serial in ("ab", "AB ", "0AB", "", "A"):
        assert ring.find(serial, NOW) is None


def test_a_rotation_makes_a_new_ring_and_never_replaces_a_configured_key():
    ring = KeyRing([VerificationKey("AB", ONE.public_key())])
    wider = ring.with_keys([VerificationKey("EF", OTHER.public_key()), VerificationKey("AB", OTHER.public_key())])
    assert (len(ring), len(wider)) == (1, 2)
    found = wider.find("AB", NOW)
    assert found is not None
    assert found.public_key.public_numbers() == ONE.public_key().public_numbers()


def test_a_certificates_key_counts_between_its_dates():
    (key,) = read_certificates(a_certificate("0ABC"), name="it")
    ring = KeyRing([key])
    assert ring.find("0ABC", NOW) == key
    assert ring.find("0ABC", NOW + timedelta(days=2)) is None
    assert ring.find("0ABC", NOW - timedelta(days=2)) is None


@pytest.mark.parametrize(("serial", "text"), [("AB", "AB"), ("ABC", "0ABC"), ("5" + "A" * 39, "5" + "A" * 39)])
def test_a_serial_has_whole_bytes(serial, text):
    (key,) = read_certificates(a_certificate(serial), name="it")
    assert key.serial == text


def test_a_bundle_gives_all_its_keys_up_to_a_bound():
    bundle = "".join(a_certificate(serial) for serial in ("A1", "B2"))
    assert [key.serial for key in read_certificates(bundle, name="it")] == ["A1", "B2"]
    with pytest.raises(ConfigurationError, match="more than 16"):
        read_certificates(a_certificate("A1") * 17, name="it")


def test_a_bad_key_is_named_and_not_quoted():
    small = generate_private_key(65537, 1024)  # noqa: S505  (that is what is refused)
    curve = ec.generate_private_key(ec.SECP256R1())
    curve_pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    curve_public_pem = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for read, pem in (
        (read_private_key, "SECRET"),
        (read_private_key, public_pem(ONE.public_key())),
        (read_private_key, curve_pem),
        (read_private_key, private_pem(small)),
        (read_public_key, "SECRET"),
        (read_public_key, curve_public_pem),
        (read_public_key, public_pem(small.public_key())),
        (read_certificates, "SECRET"),
    ):
        with pytest.raises(ConfigurationError, match=r"^the key ") as raised:
            read(pem, name="the key")
        assert "SECRET" not in str(raised.value)


def test_a_key_may_come_without_its_pem_lines():
    """As Alipay's key tools give it; older ones write PKCS#1."""
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        pem = ONE.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        bare = "".join(pem.splitlines()[1:-1])
        for text in (pem, bare, f"\n{bare[:64]}\n{bare[64:]} "):
            assert read_private_key(text, name="it").private_numbers() == ONE.private_numbers()
    bare = "".join(public_pem(ONE.public_key()).splitlines()[1:-1])
    assert read_public_key(bare, name="it").public_numbers() == ONE.public_key().public_numbers()
    for read in (read_private_key, read_public_key):
        with pytest.raises(ConfigurationError, match=r"^it is not"):
            read(bare[:-8], name="it")


def test_a_key_shows_its_serial_and_nothing_else():
    assert repr(SigningKey("AB", ONE)) == "SigningKey(serial='AB')"
    assert repr(KeyRing([VerificationKey("CD", ONE.public_key())])) == "KeyRing(CD)"


def test_secrets_are_compared_whole():
    assert same_text("门诊", "门诊")
    assert not same_text("门诊", "门诊部")
