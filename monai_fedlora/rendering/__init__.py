"""What every report is made of: figures drawn by matplotlib, pages and cards filled in by Jinja2."""
