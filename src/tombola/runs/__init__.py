"""Runs: folders on disk, validated configs, atomic writes, the tidy table, executors.

Knows nothing of networks; every study stores, resumes and spreads its work through these modules.
"""
