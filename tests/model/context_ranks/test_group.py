"""What the ranks of a group exchange, on two and on four real ranks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smolvlm.model.context_ranks.group import GatheredScope, RingScope
from tests.model.attention.dense_rule import SCALE, states


def test_attention_and_exchange_are_those_of_one_rank(tmp_path: Path) -> None:
    script = Path(__file__).with_name("context_ranks_apart.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scope", [GatheredScope, RingScope])
def test_dropout_is_refused(scope: type) -> None:
    with pytest.raises(ValueError, match="set attention_dropout to 0"):
        scope(None, None, None).attend(*states(4, dtype=torch.float32), scale=SCALE, dropout=0.1)
