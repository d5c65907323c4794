"""A HIS that speaks our signed REST JSON profile (docs/connect-a-hospital.md)."""

from hospital.rest.hospital import PARAMS, PARAMS_SECRET, RestHospital, event_key_id

__all__ = ["PARAMS", "PARAMS_SECRET", "RestHospital", "event_key_id"]
