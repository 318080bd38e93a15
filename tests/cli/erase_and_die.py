"""`shallop erase` that kills itself (SIGKILL) when its n-th phase begins.

Arguments: the number of phases to live through, then those of `erase`.
"""

import os
import signal
import sys

from cli import privacy
from shallop import main

left = int(sys.argv.pop(1))
say = privacy._say


def say_and_die(message: str) -> None:
    global left
    say(message)
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)


privacy._say = say_and_die
main()
