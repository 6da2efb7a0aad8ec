"""What is not installed is said with the command that installs it."""

import pytest

from smolvlm.build.optional_packages import read_with
from smolvlm.errors import ConfigError


def test_a_missing_package_is_named_with_its_extra() -> None:
    words = r'gguf(.|\n)*pip install "smolvlm\[quickstart\]"'
    with pytest.raises(ConfigError, match=words), read_with("gguf"):
        raise ModuleNotFoundError("No module named 'gguf'", name="gguf")


def test_what_a_package_itself_lacks_is_its_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="other"), read_with("gguf"):
        raise ModuleNotFoundError("No module named 'other'", name="other")
