"""Which certificate of Alipay's is believed: the one that was asked for, under our roots, of the same owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import ConfigurationError
from tests.support.alipay_parties import (
    APP_ID,
    NOW,
    Maker,
    certificate,
    demo_key,
    private_base64,
    public_base64,
)
from tests.support.vectors import vectors_folder
from wire.alipay.application import APPLICATION_PARAMS, Application
from wire.alipay.certificates import (
    Certificates,
    certificate_sn,
    check_new_certificate,
    leads_to_root,
    root_cert_sn,
    split_bundle,
)
from wire.alipay.envelope import NotBelieved
from wire.params import read_params

ALIPAY = "支付宝(中国)网络技术有限公司-2088000000000100"
ROOT = certificate("Root", "root", is_issuer=True)
ISSUER = certificate("Class 2", "issuer", ROOT, is_issuer=True)
OURS = certificate(ALIPAY, "demo_ali", ISSUER, serial=2)
APP = certificate(f"2088000000000100-{APP_ID}", "demo_app", ISSUER, serial=3)
HELD = Certificates.read(app=APP.pem, alipay=OURS.pem + ISSUER.pem, roots=ROOT.pem, names=("app", "alipay", "roots"))


def bundle(name: str) -> str:
    return (vectors_folder("alipay") / "certs" / name).read_text()


def checked(fresh: Maker, *more: Maker, sn: str = "", held: Certificates = HELD, now: datetime = NOW):
    pem = "".join(maker.pem for maker in (fresh, *more))
    return check_new_certificate(pem, sn or certificate_sn(fresh.certificate), held, now)


def test_the_certificates_of_alipay_lead_to_its_production_roots():
    roots = split_bundle(bundle("alipay_root_production.crt"), name="roots")
    assert len(roots) == 3  # of four: one cannot be read
    leaf, issuer = split_bundle(bundle("net_alipay_chain.crt"), name="chain")
    (other,) = split_bundle(bundle("node_alipay.crt"), name="other")
    then = datetime(2022, 1, 1, tzinfo=UTC)
    assert leads_to_root(leaf, [issuer], roots, then)
    assert leads_to_root(other, [issuer], roots, then)
    assert not leads_to_root(leaf, [], roots, then)
    assert not leads_to_root(leaf, [issuer], roots[:1], then)
    assert not leads_to_root(leaf, [issuer], roots, datetime(2024, 1, 1, tzinfo=UTC))


def test_a_renewed_certificate_is_believed():
    renewed = certificate(ALIPAY, "demo_ali", ISSUER, serial=20)
    key = checked(renewed, ISSUER)
    assert key.serial == certificate_sn(renewed.certificate) != HELD.key.serial
    assert key.public_key == demo_key("demo_ali").public_key()
    assert (key.valid_from, key.valid_until) == (NOW - timedelta(days=365), NOW + timedelta(days=365))
    assert checked(renewed) == key  # its issuer stands in our own file
    assert checked(certificate(ALIPAY, "demo_ali", ROOT, serial=21)).serial  # straight under a root


def test_any_other_certificate_is_not_believed():
    renewed = certificate(ALIPAY, "demo_ali", ISSUER, serial=20)
    elsewhere = certificate("Class 2", "elsewhere", is_issuer=True)
    merchants = certificate(ALIPAY, "elsewhere", APP, serial=20)  # signed with a merchant's own key
    short = certificate("Class 2", "issuer", ROOT, is_issuer=True, until=NOW - timedelta(days=1))
    held = Certificates.read(app=APP.pem, alipay=OURS.pem, roots=ROOT.pem, names=("app", "alipay", "roots"))
    for reason, call in (
        ("asked for", lambda: checked(renewed, ISSUER, sn=certificate_sn(OURS.certificate))),
        ("somebody else's", lambda: checked(APP, ISSUER)),
        ("does not lead", lambda: checked(certificate(ALIPAY, "elsewhere", serial=20))),
        ("does not lead", lambda: checked(certificate(ALIPAY, "elsewhere", elsewhere, serial=20), elsewhere)),
        ("does not lead", lambda: checked(merchants, APP, ISSUER)),
        ("does not lead", lambda: checked(renewed, held=held)),
        ("does not lead", lambda: checked(renewed, short, held=held)),
        ("does not lead", lambda: checked(renewed, ISSUER, now=NOW + timedelta(days=366))),
        ("PEM form", lambda: check_new_certificate("", "0" * 32, HELD, NOW)),
    ):
        with pytest.raises(NotBelieved, match=reason):
            call()


def test_what_was_signed_with_sha1_leads_nowhere():
    """Roots sign themselves; one of Alipay's did it with SHA-1."""
    _, sha256_root, sha1_root = split_bundle(bundle("alipay_root_production.crt"), name="roots")
    assert leads_to_root(sha256_root, [], [sha256_root], NOW)
    assert not leads_to_root(sha1_root, [], [sha1_root], NOW)


def test_a_chain_has_a_bound():
    issuer, between = ROOT, []
    for number in range(4):
        issuer = certificate(f"Class {number}", "issuer", issuer, is_issuer=True)
        between.append(issuer)
    long, short = (certificate(ALIPAY, "demo_ali", issuer, serial=20) for issuer in (between[3], between[2]))
    issuers = [maker.certificate for maker in between]
    assert leads_to_root(short.certificate, issuers, [ROOT.certificate], NOW)
    assert not leads_to_root(long.certificate, issuers, [ROOT.certificate], NOW)


def test_bundles_have_bounds_and_names():
    assert len(split_bundle(ROOT.pem * 16, name="it")) == 16
    for read in (split_bundle, root_cert_sn):
        for text, reason in ((ROOT.pem * 17, "more than 16"), ("SECRET", "PEM form")):
            with pytest.raises(ConfigurationError, match=f"^it .*{reason}") as raised:
                read(text, name="it")
            assert "SECRET" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="no root that is signed with RSA"):
        root_cert_sn(bundle("net_sm2_app.crt"), name="it")
    with pytest.raises(ConfigurationError, match="holds a certificate"):
        Certificates.read(app=APP.pem, alipay=bundle("net_sm2_app.crt"), roots=ROOT.pem, names=("a", "b", "c"))


# ---------------------------------------------------------------- an application's settings

FILES = {"app_certificate": APP.pem, "alipay_certificate": OURS.pem + ISSUER.pem, "alipay_roots": ROOT.pem}
PRIVATE = {"app_private_key": private_base64("demo_app")}


def read(**given: str) -> Application:
    return Application.read(APP_ID, read_params(APPLICATION_PARAMS, given, owner="it"), owner="it")


def test_an_application_has_one_mode():
    with_key = read(**PRIVATE, alipay_public_key=public_base64("demo_ali"))
    assert (with_key.certificates, with_key.signing_key.serial, len(with_key.keys)) == (None, "", 1)
    with_files = read(**PRIVATE, **FILES)
    assert with_files.certificates == HELD
    assert with_files.signing_key.serial == certificate_sn(APP.certificate)
    assert [key.serial for key in with_files.keys] == [certificate_sn(OURS.certificate)]
    assert with_key.gateway_url == "https://openapi.alipay.com/gateway.do"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (PRIVATE, "alipay_public_key, or app_certificate"),
        ({**PRIVATE, **FILES, "alipay_public_key": public_base64("demo_ali")}, "not both"),
        ({**PRIVATE, "alipay_public_key": public_base64("demo_app")}, "application's own"),
        ({**PRIVATE, **FILES, "alipay_roots": ""}, "needs all of"),
        ({"app_private_key": private_base64("demo_ali"), **FILES}, "does not belong to"),
        ({**PRIVATE, **FILES, "aes_key": "SECRET"}, "aes_key"),
        ({**PRIVATE, **FILES, "aes_key": "YWJj"}, "16 bytes"),
        ({**PRIVATE, **FILES, "gateway_url": "http://pay.example/gateway.do"}, "gateway_url"),
        ({**PRIVATE, **FILES, "gateway_url": "https://pay.example/gateway.do?a=1"}, "gateway_url"),
        ({**FILES, "app_private_key": "SECRET"}, "app_private_key"),
    ],
)
def test_settings_that_do_not_fit_are_named_and_not_quoted(given, reason):
    with pytest.raises(ConfigurationError, match=reason) as raised:
        read(**given)
    assert str(raised.value).startswith("it: ")
    assert "SECRET" not in str(raised.value)


def test_nothing_secret_is_in_an_applications_text():
    text = repr(read(**PRIVATE, **FILES, aes_key="aa4BtZ4tspm2wnXLb1ThQA=="))
    assert "aes" not in text
    assert "private" not in text.lower()
    with pytest.raises(ConfigurationError, match="digits only"):
        Application.read("wx1", {}, owner="it")
