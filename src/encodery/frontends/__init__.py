"""Batch -> States: raw signals become vectors."""
