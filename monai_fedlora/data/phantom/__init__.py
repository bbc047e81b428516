"""Made-up beating hearts in short-axis cine pictures, from four made-up scanners."""
