"""Bodies as nobody should send them, in great number, for the readers that stand open to everybody."""
