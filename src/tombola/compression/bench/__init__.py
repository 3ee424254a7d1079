"""`tombola bench`: a network on every engine there is, taking turns; what they compute compared before it is timed."""
