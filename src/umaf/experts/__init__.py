"""Experts: singular-value multipliers of a base, trained, stored, mixed and exported."""
