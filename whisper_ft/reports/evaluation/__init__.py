"""An evaluation for readers: one HTML page, console tables, one line to grep."""
