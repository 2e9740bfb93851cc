"""`python -m streams.cli` is the command `reptide`."""

from streams.cli.app import main

main()
