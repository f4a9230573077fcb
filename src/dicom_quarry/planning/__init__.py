"""Plans: query every row of a cohort and move nothing."""
