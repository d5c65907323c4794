"""Alipay's gateway, version 2: what its payments and its life account both speak."""
