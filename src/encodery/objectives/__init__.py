"""Output + truth -> loss: what a model is asked to be good at."""
