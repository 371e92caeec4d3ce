"""weights -> answers."""
