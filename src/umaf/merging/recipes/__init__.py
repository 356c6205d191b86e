"""Recipes: what is merged, by which method, with which options, from YAML or from Python."""
