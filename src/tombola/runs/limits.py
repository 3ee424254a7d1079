"""The limits of everything that is read from outside, each in one line, checked before memory is taken.

Together they keep any file of up to 1 MB below 2 GiB of memory, a ticket file below 1 GiB, and 30 seconds, whatever it
claims. What a file may become is bounded by what it *is*: so many times its own size, of files below 1 MiB as of one
of 1 MiB.
"""

from __future__ import annotations

MIB, GIB = 1 << 20, 1 << 30

TENSORS = 16 * GIB  # a file of tensors: safetensors, torch's, HDF5
DATA = 4 * GIB  # a file of a data set, and what its arrays or images may take as bytes
IMAGE_FILE = 512 * MIB  # one image
DOWNLOAD = 256 * MIB  # a data set that is fetched
MASK = 8 * GIB  # a ticket's mask, a byte a weight
FOREST = 4 * GIB  # a random forest in ONNX
COPY = 16 * GIB  # a result that is copied
JSON = 64 * MIB  # any JSON but these:
SPEC = 1 * MIB  # a model's spec
ROWS = 4 * GIB  # a run's table
KERAS_CONFIG = 16 * MIB  # the layers of a .keras file
CONFIG = 1 * MIB  # a YAML config
PATTERN_SECONDS = 20.0  # a regular expression of a config, on all paths

UNPACKED_RATIO = 256  # bytes that a packed file may unpack to, or images become, for each of its own
DECODING_RATIO = 256  # pixels that images may take to decode, once for each scan, for each byte of their files
WEIGHTS_RATIO = 200  # weights, removed ones included, of a sparse model, for each byte of its file
TICKET_RATIO = 64  # bytes that a ticket file may unpack to, for each of its own
TICKET_WEIGHTS = 120  # its weights, removed ones included: each takes six to eight bytes while the network is made
TICKET_WHOLE = 32  # numbers before units were removed: each takes up to 20 bytes while they are
TICKET_HEADER = 4 * MIB  # what it says, in JSON: that becomes 24 times as much
MEMBERS_ANYWAY, BYTES_PER_MEMBER = 10_000, 32  # files that an archive may hold: see `members`

YAML_NODES, YAML_DEPTH = 10_000, 32  # keys, values and lists of a config, those of its aliases each time; nesting
KEYS = 100_000  # tensors in a file, arrays in an archive of arrays
HDF5_ENTRIES, HDF5_DEPTH = 10_000, 12  # groups and arrays in an HDF5 file; nesting
KERAS_LAYERS, KERAS_DEPTH = 2_000, 8  # layers of a .keras file; models within models
ARCHIVE_DEPTH = 8  # folders within folders in a tar
SCANS = 100  # scans of a progressive JPEG: it has about ten, or the file was made to be slow
REPLICATES = 1_000  # of a study
METHODS = 10_000  # to prune, of a comparison
WIDTHS = 1_000  # hidden layers of a model's spec
PLANS, NODES = 64, 10_000  # of a sparse model: batch sizes that were tuned, steps of its graph


def unpacked(packed: int) -> int:
    """The most bytes that a file of `packed` bytes may unpack to, or its images become."""
    return UNPACKED_RATIO * max(packed, MIB)


def decoding(size: int) -> int:
    """The most pixels, each as often as a scan goes over it, that images of `size` bytes may take to decode."""
    return DECODING_RATIO * max(size, MIB)


def members(size: int) -> int:
    """The most files and folders that an archive of `size` bytes, as it lies on the disk, may hold."""
    return MEMBERS_ANYWAY + size // BYTES_PER_MEMBER


def ticket(packed: int) -> int:
    """The most bytes that a ticket file of `packed` bytes may unpack to."""
    return TICKET_RATIO * max(packed, MIB)


def ticket_weights(packed: int) -> int:
    """The most weights that a ticket file of `packed` bytes may have, removed ones included."""
    return TICKET_WEIGHTS * max(packed, MIB)


def ticket_whole(packed: int) -> int:
    """The most numbers that the network of such a file may have had before units were removed."""
    return TICKET_WHOLE * max(packed, MIB)


def weights(size: int) -> int:
    """The most weights that a sparse model of `size` bytes may have, removed ones included."""
    return WEIGHTS_RATIO * max(size, MIB)
