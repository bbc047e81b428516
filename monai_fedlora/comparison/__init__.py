"""Methods side by side: the same data, backbone and rounds, by the code that federations run."""
