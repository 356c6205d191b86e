"""Running a plan: every tensor merged where it will lie in the result."""
