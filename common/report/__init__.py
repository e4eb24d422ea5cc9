"""The report: all results of the five tasks as one table and one page."""
