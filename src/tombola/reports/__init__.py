"""Reports: tidy tables in, intervals, figures and pages out. No torch in here."""
