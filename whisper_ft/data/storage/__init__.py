"""Files of data sets: local and remote, in folders and in archives."""
