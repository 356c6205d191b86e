"""Merging: checkpoints and adapters of one architecture combined by a published rule."""
