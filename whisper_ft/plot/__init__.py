"""The curves of one or several runs, as a picture and as a page."""
