"""Heads that write: decoders over any encoder, and how texts are drawn from them."""
