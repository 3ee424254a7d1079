"""Data sets in memory as tensors, each checked as it is read, split by a seed."""

from tombola.data.dataset import DataSet, Examples, Normalisation, RawData, normalised
from tombola.data.sources import DataConfig, data_sets, load_data, load_raw, split_data, split_record

__all__ = [
    "DataConfig",
    "DataSet",
    "Examples",
    "Normalisation",
    "RawData",
    "data_sets",
    "load_data",
    "load_raw",
    "normalised",
    "split_data",
    "split_record",
]
