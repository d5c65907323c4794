"""The product's real programs, killed with SIGKILL at chosen bytes; the counterparties' books decide afterwards."""
