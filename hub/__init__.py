"""Runs at rest: the run folder, its records, checkpoints and card, and the way to open any model. May import `data` and
`modeling`."""
