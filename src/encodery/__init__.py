"""Encodery: make your own encoder."""
