"""Writes old ciphertexts anew with the current key, so that an old key can be taken out of the ring."""

from __future__ import annotations

from dataclasses import dataclass

from core.outside import Outside
from core.tenancy import across_institutions
from core.transactions import rows

BATCH_MAX = 200

SEALED = (
    ("hospital_site", "params_enc", "hospital_site.params"),
    ("merchant_account", "params_enc", "merchant_account.params"),
    ("chat_account", "params_enc", "chat_account.params"),
    ("patient", "name_enc", "patient.name"),
    ("patient_identifier", "value_enc", "patient_identifier.value"),
    ("payer", "open_id_enc", "payer.open_id"),
    ("payment", "pay_params_enc", "payment.pay_params"),
    ("raw_body", "body_enc", "raw_body.body"),
    ("inbound", "content_enc", "inbound.content"),
    ("message", "values_enc", "message.values"),
    ("consent", "phone_enc", "consent.phone"),
    ("staff", "name_enc", "staff.name"),
    ("decision", "document_enc", "decision.document"),
)
"""Table, column, and the place that the ciphertext is bound to."""


@dataclass(frozen=True, slots=True)
class Rotation:
    outside: Outside

    async def stale(self) -> int:
        """How many stored values still need an old key."""
        total = 0
        with across_institutions("keys are the deployment's"):
            for table, column, _ in SEALED:
                found = await rows(
                    f"SELECT count(*) AS count FROM {table} WHERE {column} <> '' AND NOT starts_with({column}, $1)",
                    self._prefix(),
                )
                total += int(found[0]["count"])
        return total

    async def step(self) -> int:
        """Write up to BATCH_MAX values of each column anew; returns how many. Safe to run anywhere, any time.

        Raises ConfigurationError when a value's key is no longer in the ring.
        """
        keyring, changed = self.outside.keyring, 0
        with across_institutions("keys are the deployment's"):
            for table, column, place in SEALED:
                found = await rows(
                    f"SELECT id, {column} AS sealed FROM {table}"
                    f" WHERE {column} <> '' AND NOT starts_with({column}, $1) LIMIT {BATCH_MAX}",
                    self._prefix(),
                )
                for row in found:
                    anew = keyring.encrypt(keyring.decrypt(row["sealed"], place=place), place=place)
                    changed += len(
                        await rows(
                            f"UPDATE {table} SET {column} = $3 WHERE id = $1 AND {column} = $2 RETURNING id",
                            row["id"],
                            row["sealed"],
                            anew,
                        )
                    )
        return changed

    def _prefix(self) -> str:
        return f"v1.{self.outside.keyring.current}."
