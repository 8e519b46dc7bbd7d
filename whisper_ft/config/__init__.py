"""Settings of every program, their types, bounds and resume rules."""
