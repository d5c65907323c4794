"""The keys that the simulated WeChat Pay signs with: its public key and its platform certificates."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from simulators.wechatpay_books import Merchant, PlatformKey, beijing_time, digits
from simulators.wechatpay_calls import ApiError, Call
from simulators.wechatpay_keys import (
    PUBLIC_KEY_ID_PREFIX,
    SCHEME,
    SIGNTEST_PREFIX,
    aead_encrypt,
    answer_message,
    read_private_key,
    rsa_key,
    self_signed_certificate,
    sign,
)
from simulators.wechatpay_ledger import Ledger


class Platform:
    """Both kinds of key are held all the time; the newest of each signs."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        public_private_key: RSAPrivateKey | str | None,
        certificate_private_key: RSAPrivateKey | str | None,
    ) -> None:
        self._ledger = ledger
        self._keys: dict[str, PlatformKey] = {}
        self._rotations = 0
        self.public_key = self._make_public_key(_private_key(public_private_key, "wechatpay public key"))
        self.certificate = self._make_certificate(_private_key(certificate_private_key, "wechatpay certificate"))

    def rotate_certificate(self) -> PlatformKey:
        """A new platform certificate signs from now on; the one before stays valid and listed."""
        self._rotations += 1
        self.certificate = self._make_certificate(rsa_key(f"wechatpay certificate {self._rotations}"))
        return self.certificate

    def rotate_public_key(self) -> PlatformKey:
        """A new public-key pair signs from now on; a request may still name the old one."""
        self._rotations += 1
        self.public_key = self._make_public_key(rsa_key(f"wechatpay public key {self._rotations}"))
        return self.public_key

    def answer_key(self, serial: str, merchant: Merchant) -> PlatformKey:
        """The key that signs the answer: the one the request names, else the older way if there is one."""
        if not serial:
            return self.public_key if merchant.public_key_only else self.certificate
        key = self._keys.get(serial)
        if key is None or (key.certificate_pem and merchant.public_key_only):
            raise ApiError(400, "PARAM_ERROR", "平台证书序列号Wechatpay-Serial错误", number=268435461)
        return key

    def signed(self, key: PlatformKey, now: datetime, body: bytes, *, purpose: str, flaw: str) -> dict[str, str]:
        """The headers of an answer or a notice."""
        timestamp = str(int(now.timestamp()))
        nonce = self._ledger.hash("nonce", purpose, timestamp)[:32]
        private_key = rsa_key("a stranger") if flaw in ("forged", "bad_signature") else key.private_key
        signature = sign(private_key, answer_message(timestamp, nonce, body))
        return {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": nonce,
            "wechatpay-signature": SIGNTEST_PREFIX + signature if flaw == "signtest" else signature,
            "wechatpay-serial": self._ledger.serial("unknown") if flaw == "unknown_serial" else key.serial,
            "wechatpay-signature-type": SCHEME,
        }

    def certificates(self, call: Call) -> dict[str, Any]:
        """GET /v3/certificates."""
        merchant, now = call.caller, self._ledger.clock.now()
        if merchant.public_key_only:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥")
        if merchant.api_v3_key is None:
            raise ApiError(400, "INVALID_REQUEST", "请先设置APIv3密钥")
        data = []
        for key in self._keys.values():
            if not key.certificate_pem or now > key.valid_until:
                continue
            nonce = self._ledger.hash("certificate nonce", key.serial, merchant.mchid)[:12]
            data.append(
                {
                    "serial_no": key.serial,
                    "effective_time": beijing_time(key.valid_from),
                    "expire_time": beijing_time(key.valid_until),
                    "encrypt_certificate": {
                        "algorithm": "AEAD_AES_256_GCM",
                        "nonce": nonce,
                        "associated_data": "certificate",
                        "ciphertext": aead_encrypt(
                            merchant.api_v3_key,
                            nonce=nonce,
                            associated_data="certificate",
                            plaintext=key.certificate_pem.encode(),
                        ),
                    },
                }
            )
        return {"data": data}

    def _make_public_key(self, private_key: RSAPrivateKey) -> PlatformKey:
        now = self._ledger.clock.now()
        serial = f"{PUBLIC_KEY_ID_PREFIX}01{digits(self._ledger.hash('public key', self._rotations), 32)}"
        key = PlatformKey(
            serial=serial,
            private_key=private_key,
            valid_from=now,
            valid_until=now + timedelta(days=365 * 100),
        )
        self._keys[serial] = key
        return key

    def _make_certificate(self, private_key: RSAPrivateKey) -> PlatformKey:
        valid_from = self._ledger.clock.now().replace(microsecond=0) - timedelta(days=1)
        valid_until = valid_from + timedelta(days=365 * 5)
        serial = self._ledger.serial("certificate", self._rotations)
        pem = self_signed_certificate(
            private_key,
            serial=serial,
            common_name="Simulated Tenpay.com sign",
            not_before=valid_from,
            not_after=valid_until,
        )
        key = PlatformKey(
            serial=serial,
            private_key=private_key,
            certificate_pem=pem,
            valid_from=valid_from,
            valid_until=valid_until,
        )
        self._keys[serial] = key
        return key


def _private_key(given: RSAPrivateKey | str | None, name: str) -> RSAPrivateKey:
    if given is None:
        return rsa_key(name)
    return read_private_key(given) if isinstance(given, str) else given
