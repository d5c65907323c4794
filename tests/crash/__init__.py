"""A seeded world: every program in one process on a real PostgreSQL, one I/O at a time, kills included."""
