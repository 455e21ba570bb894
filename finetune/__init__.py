"""Any causal language model is adapted to a person's data. May import `interpret`, `training`, `hub` and `data`."""
