"""Print the package index that torch should come from, or nothing for the default one.

The default index's Linux build brings 3 GB of CUDA. A machine without an NVIDIA driver is better
served by PyTorch's own CPU index, where that answers. Runs before anything is installed: standard
library only.
"""

import shutil
import sys
import urllib.error
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def torch_index() -> str:
    """`CPU_INDEX` where there is no NVIDIA driver and the index answers within 5 s, else ``."""
    if sys.platform != "linux" or shutil.which("nvidia-smi"):
        return ""
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5):
            return CPU_INDEX
    except (urllib.error.URLError, OSError):
        return ""


if __name__ == "__main__":
    sys.stdout.write(torch_index())
