"""Data pipeline: from the rows of a data set to the windows that the model trains on."""
