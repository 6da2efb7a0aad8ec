"""Keeps what other libraries print by themselves out of this program's output.

Only messages that are known and say nothing to the user are dropped; every other warning and error
of theirs still appears. Bars are hidden by the command line alone: a program keeps its own
settings.
"""

import logging


def drop_import_warnings() -> None:
    """Drop warnings that importing a library causes; to be called before the import.

    bitsandbytes 0.50 warns on every CPU with AVX512-BF16 that its 4-bit kernel of the package
    `kernels` is missing ("Failed to load CPU gemm_4bit_forward ..."), and peft imports bitsandbytes
    wherever it is installed. Our own products over 4-bit weights never call that kernel.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_about_something_else)


def _is_about_something_else(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")


def hide_progress_bars() -> None:
    """Switch off transformers' progress bars ("Loading weights", "Writing model shards").

    Bars of downloads from the hub stay where they are on. Imports transformers.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    shows_downloads = not are_progress_bars_disabled()
    disable_progress_bar()  # those of downloads too
    if shows_downloads:
        enable_progress_bars()
