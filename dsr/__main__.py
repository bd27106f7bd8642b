"""`python -m dsr`: the same as the command `dsr`."""

from dsr.cli import main

main()
