"""A HIS that speaks our signed REST JSON profile (docs/connect-a-hospital.md)."""

from hospital.rest.hospital import PARAMS, PARAMS_SECRET, RestHospital

__all__ = ["PARAMS", "PARAMS_SECRET", "RestHospital"]
