"""What is compared. Each suite is a module with ``rows(plan) -> list[Row]``."""

NAMES = ("products", "batch", "eigs", "threshold", "scaling", "sweeps")
