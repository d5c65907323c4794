"""Alipay, open platform gateway v2."""
