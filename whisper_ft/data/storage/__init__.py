"""Files, archives and remote objects that rows are read from."""
