"""Races run for real: several processes, each with its own pool of connections, on one PostgreSQL."""
