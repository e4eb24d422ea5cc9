"""Spoken digits: the data, networks, losses and evaluations that the five tasks share."""

import os
import sys

# A notebook chooses a backend for matplotlib also for the programs that it starts, which may not have it and would fail
# when they import matplotlib. Pictures go to files here. The notebook itself keeps its choice.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
