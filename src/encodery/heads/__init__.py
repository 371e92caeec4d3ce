"""States -> Output: vectors become answers."""
