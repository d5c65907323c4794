"""The keys and certificates that the simulated Alipay signs with, and those it gives to applications."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509 import load_pem_x509_certificate

from simulators.alipay_books import Application, PlatformKey
from simulators.alipay_calls import ApiError, Call
from simulators.alipay_keys import (
    certificate_sn,
    curve_key,
    make_certificate,
    root_certificate_sn,
    rsa_key,
    sign,
)
from simulators.alipay_ledger import Ledger

CERTIFICATE_LIFE = timedelta(days=365 * 5)
ROOT, CURVE_ROOT, ISSUER = "Ant Authority R1", "Ant Authority E1", "Ant Authority Class 2 R1"


class Platform:
    """Certificates are made when the first application wants one: public-key mode needs none."""

    def __init__(self, ledger: Ledger, private_key: RSAPrivateKey | None = None) -> None:
        self._ledger = ledger
        self.public_key = PlatformKey(private_key=private_key or rsa_key("alipay"))
        self._certificates: list[PlatformKey] = []
        self._root_bundle = ""
        self._root_sn = ""
        self._rotations = 0

    @property
    def certificate(self) -> PlatformKey:
        """The one that is signed with now."""
        if not self._certificates:
            self.rotate_certificate()
        return self._certificates[-1]

    @property
    def root_bundle(self) -> str:
        """What merchants download as alipayRootCert.crt: an entry on a curve, which has no number, and the RSA root."""
        if not self._root_bundle:
            curve = curve_key("alipay curve root")
            self._root_bundle = self._issue(
                curve.public_key(), CURVE_ROOT, issuer=CURVE_ROOT, issuer_key=curve
            ) + self._issue(rsa_key("alipay root").public_key(), ROOT, issuer=ROOT, issuer_key=rsa_key("alipay root"))
        return self._root_bundle

    @property
    def root_sn(self) -> str:
        if not self._root_sn:
            self._root_sn = root_certificate_sn(self.root_bundle)
        return self._root_sn

    def rotate_certificate(self, *, new_key: bool = False) -> PlatformKey:
        """Another certificate, as a rule for the same key; those before it can still be downloaded."""
        self._rotations += 1
        same = self._certificates[-1].private_key if self._certificates else rsa_key("alipay certificate")
        private_key = rsa_key(f"alipay certificate {self._rotations}") if new_key else same
        issuer = rsa_key("alipay issuer")
        leaf = self._issue(private_key.public_key(), "Alipay Certificate", issuer=ISSUER, issuer_key=issuer)
        between = self._issue(issuer.public_key(), ISSUER, issuer=ROOT, issuer_key=rsa_key("alipay root"))
        key = PlatformKey(private_key=private_key, cert_sn=_sn(leaf), certificate_pem=leaf + between)
        self._certificates.append(key)
        return key

    def certify(self, public_key: RSAPublicKey, app_id: str) -> tuple[str, str]:
        """An application's certificate and its number."""
        pem = self._issue(public_key, f"Application {app_id}", issuer=ISSUER, issuer_key=rsa_key("alipay issuer"))
        return pem, _sn(pem)

    def key_for(self, application: Application) -> PlatformKey:
        return self.certificate if application.certificate_mode else self.public_key

    def signature(self, key: PlatformKey, message: bytes, *, flaw: str = "") -> str:
        private_key = rsa_key("a stranger") if flaw in ("forged", "bad_signature") else key.private_key
        return sign(private_key, message, digest=SHA1() if flaw == "sha1" else None)  # noqa: S303 - a fault

    def download(self, call: Call) -> dict[str, Any]:
        """alipay.open.app.alipaycert.download; the documents name no code for an unknown number."""
        for key in self._certificates:
            if key.cert_sn == call.content["alipay_cert_sn"]:
                return {"alipay_cert_content": base64.b64encode(key.certificate_pem.encode()).decode()}
        raise ApiError("40004", "CERT_NOT_EXIST", "证书不存在")

    def _issue(self, public_key: Any, common_name: str, *, issuer: str, issuer_key: Any) -> str:
        not_before = self._today() - timedelta(days=1)
        return make_certificate(
            public_key,
            common_name,
            issuer=issuer,
            issuer_key=issuer_key,
            serial=int(self._ledger.hash("certificate", common_name, self._rotations)[:32], 16),
            not_before=not_before,
            not_after=not_before + CERTIFICATE_LIFE,
        )

    def _today(self) -> datetime:
        return self._ledger.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)


def _sn(pem: str) -> str:
    return certificate_sn(load_pem_x509_certificate(pem.encode()))
