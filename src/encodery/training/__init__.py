"""loss -> better weights: optimizers, the one loop, resume, journal."""
