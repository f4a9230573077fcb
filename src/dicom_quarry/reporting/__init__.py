"""What the user gets to read: report.csv, studies.csv, the manifest and the summary."""
