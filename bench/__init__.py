"""Measurements of the whole product on one machine; each prints its figures and ends with 1 when a promise broke."""
