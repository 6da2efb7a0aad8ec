"""What one rank does in `test_ranks.py`: `torchrun ... ranks_run.py RUN.yaml`.

Trains as `smolvlm train` would, then asks for a step that cannot be dealt to the ranks and notes what it is told.
"""

import sys
from pathlib import Path

from smolvlm.commands.train import train_and_report
from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.arguments import training_arguments

run_file = Path(sys.argv[1])
run = train_and_report(load_run_config(run_file))
odd = load_run_config(run_file, ["train.packs_per_step=3"])
try:
    training_arguments(odd.train, run.planned.plan)
except ConfigError as error:
    (run_file.parent / f"refused-{run.trainer.args.process_index}.txt").write_text(str(error))
