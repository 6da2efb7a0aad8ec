"""What can be wrong with a picture, as the error that its row gets."""

from smolvlm.disk.system_errors import raise_of_the_machine
from smolvlm.errors import SampleError
from smolvlm.records import ImageRef

REPLACE = "replace the file"


def unreadable_picture(ref: ImageRef, error: OSError | ValueError) -> SampleError:
    """Return what is wrong with a picture whose file cannot be read.

    Raises:
        OSError: it is nothing of the file: too many open files, no memory.
    """
    raise_of_the_machine(error)
    cause = getattr(error, "strerror", None) or str(error)
    return SampleError(
        f"picture {ref.name} cannot be read ({cause})",
        kind="corrupt_media",
        fix="check the path and its permissions",
    )


def empty_picture(ref: ImageRef) -> SampleError:
    """Return what is wrong with a picture of no bytes."""
    return SampleError(
        f"picture {ref.name} is empty (zero bytes)",
        kind="empty_media",
        fix=REPLACE,
    )


def damaged_picture(ref: ImageRef, detail: str) -> SampleError:
    """Return what is wrong with a picture that its decoder refuses."""
    return SampleError(
        f"picture {ref.name} is damaged or cut short ({detail})",
        kind="corrupt_media",
        fix=REPLACE,
    )


def too_large_picture(ref: ImageRef, max_pixels: int, detail: str) -> SampleError:
    """Return what is wrong with a picture above the limit of pixels."""
    return SampleError(
        f"picture {ref.name} is larger than the limit of {max_pixels} pixels ({detail})",
        kind="too_large_media",
        fix="shrink it, or raise `data.max_image_pixels` if you have the memory; a small file that "
        "claims such a size is a decompression bomb",
    )
