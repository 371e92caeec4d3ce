"""Heads that tag: a score for each tag of a unit, a chain over them, and a linear answer beside."""
