"""What a cine backbone is worth on real patients, none of whom it has seen."""
