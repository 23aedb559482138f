"""The report of a suite: one page with its figures, tables, comparison and provenance."""
