"""What is not installed is named, with what to install."""

import pytest

from smolvlm.errors import ConfigError
from smolvlm.export.packages import check_packages, with_version


def test_all_that_is_missing_is_named_at_once() -> None:
    check_packages(["json", "torch"], where="--to gguf")
    with pytest.raises(ConfigError) as error:
        check_packages(["torch", "no_such_one", "nor_this"], where="--to gguf")
    assert str(error.value) == (
        "--to gguf: no_such_one and nor_this are not installed\n"
        '  fix: pip install "smolvlm[export]"'
    )


def test_a_version_is_told_where_there_is_one() -> None:
    assert with_version("pytest") == f"pytest {pytest.__version__}"
    assert with_version("no-such-package") == "no-such-package"
