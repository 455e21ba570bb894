"""A Qwen, or any causal language model, is adapted to a person's data. May import `interpret`, `training`, `hub`, `data`."""
