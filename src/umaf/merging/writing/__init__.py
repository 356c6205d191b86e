"""What a merged folder holds besides its weights."""
