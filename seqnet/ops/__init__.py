"""Symbolic building blocks below the layers: the recurrence and dropout masks."""
