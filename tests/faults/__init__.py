"""Faults at random moments, and what must hold after each: `make faults`."""
