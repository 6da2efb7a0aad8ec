"""A stage that ends as its argument says: for the runner's tests."""

import os
import signal
import subprocess
import sys
import time

from gpu_check.contract import CheckFailed, CheckSkipped, Report, Settings


def run(settings: Settings, report: Report) -> None:
    """Note a figure, then fail, hang, crash, skip or pass."""
    report.add(begun=1, nested={"value": 2})
    match settings.argument:
        case "fails":
            raise CheckFailed("two is not three")
        case "raises":
            raise ValueError("a\nbroken contract")
        case "lacks":
            import a_package_that_nobody_has  # noqa: F401
        case "skips":
            raise CheckSkipped("there is nothing to check")
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exits":
            os._exit(7)
        case "hangs":
            sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            report.add(sleeper=sleeper.pid)
            time.sleep(600)
