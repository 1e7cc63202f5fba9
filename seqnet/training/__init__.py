"""Training: the compiled steps, the loop around them, and what a run needs to be resumed."""
