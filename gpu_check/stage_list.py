"""Which stages there are, in their order, and how long each may take.

The first four are the core: with the unpacking of the wheels they end within five minutes. The
limits of the others add up to more than what is left of `BUDGET_S`; the runner shortens the last
ones, so that a run ends in nine minutes.
"""

from gpu_check.contract import Stage

UNPACK_LIMIT_S = 30.0
BUDGET_S = 540.0

STAGES = (
    Stage(name="install", module="gpu_check.stages.install", limit_s=70),
    Stage(name="exact", module="gpu_check.stages.exact", limit_s=90),
    Stage(name="sync", module="gpu_check.stages.sync", limit_s=70),
    Stage(name="distributed", module="gpu_check.stages.distributed", limit_s=40),
    Stage(name="speed_256m", module="gpu_check.stages.speed", limit_s=60, argument="256M"),
    Stage(name="launches", module="gpu_check.stages.launches", limit_s=60),
    Stage(name="varlen", module="gpu_check.stages.varlen", limit_s=50),
    Stage(name="speed_500m", module="gpu_check.stages.speed", limit_s=60, argument="500M"),
    Stage(name="speed_2b", module="gpu_check.stages.speed", limit_s=70, argument="2.2B"),
    Stage(name="peers", module="gpu_check.stages.peers", limit_s=70),
    Stage(name="cost", module="gpu_check.stages.cost", limit_s=40),
    Stage(name="resume", module="gpu_check.stages.resume", limit_s=70),
    Stage(name="qlora", module="gpu_check.stages.qlora", limit_s=60),
)
CORE = tuple(stage.name for stage in STAGES[:4])
