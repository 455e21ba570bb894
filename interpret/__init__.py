"""What a model does and why. May import `training`, `hub` and `data`; works on what `hub.models` opened."""
