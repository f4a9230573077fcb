"""Pages and drawings: report.html, and what the web pages and notebooks share with it."""
