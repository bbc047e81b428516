"""What there is to classify in files, folders, archives and tables: studies of one patient each, not opened yet."""
