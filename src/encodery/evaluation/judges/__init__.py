"""One judge for each kind of task: what a trained model says of the rows, and what that is worth."""
