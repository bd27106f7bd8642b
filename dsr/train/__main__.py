"""`python -m dsr.train --run-dir DIR`: what the launcher starts as every rank."""

from dsr.train.loop import main

main()
