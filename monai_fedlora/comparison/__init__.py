"""Compare methods on the same data, backbone and rounds, with the code that federations run."""
