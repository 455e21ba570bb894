"""A recipe becomes a run. May import `hub`, `data` and `modeling`."""
