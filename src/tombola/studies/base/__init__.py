"""The life cycle that every study shares. It names no study: `studies.registered` does."""
