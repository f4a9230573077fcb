"""Reports for the user: report.csv, studies.csv, the manifest, summaries, plans and row histories."""
