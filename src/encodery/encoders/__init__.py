"""States -> States: vectors learn their context."""
