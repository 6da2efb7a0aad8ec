"""`smolvlm train`, killed in the middle of a step where one is named: `RUN.yaml [STEP]`.

Nothing is flushed, closed or cleaned up, as when a machine is taken away.
"""

import os
import signal
import sys
from typing import Any

from smolvlm.cli.main import main
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer


def die_in_step(step: int) -> None:
    """Let this process be killed after the backward pass of a step."""
    training_step = SmolVLMTrainer.training_step

    def training_step_and_die(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    SmolVLMTrainer.training_step = training_step_and_die


if __name__ == "__main__":
    run_file, *steps = sys.argv[1:]
    for number in steps:
        die_in_step(int(number))
    sys.argv = ["smolvlm", "train", run_file]
    main()
