"""`python -m hubtune` is the command line; `accelerate launch -m hubtune` and `torchrun -m hubtune`
start it, too.
"""

import sys

from hubtune.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
