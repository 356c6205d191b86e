"""Planning: from a recipe to a flat list of jobs, with everything checked that headers can tell."""
