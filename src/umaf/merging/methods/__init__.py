"""The merge methods, one file each; the table in `umaf.merging.registry` names them."""
