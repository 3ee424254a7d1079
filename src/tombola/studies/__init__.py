"""Studies: what a person runs. Every study has the rooms config, study, metrics and report."""
