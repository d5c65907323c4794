"""Everything that may go wrong has a name, and each flow that it strikes has a listed end."""
