"""Tasks: named texts with answers, from a folder, from the hub, or from the project's own grammars."""
