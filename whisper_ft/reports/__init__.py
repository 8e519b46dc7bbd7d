"""HTML pages and charts, and the texts in them."""
