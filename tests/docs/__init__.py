"""Run the documents: each command on a page works, and its output is the one on the page."""
