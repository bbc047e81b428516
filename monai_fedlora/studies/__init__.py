"""Find studies in files, folders, archives and csv lists. A study is one patient's images; these are read elsewhere."""
