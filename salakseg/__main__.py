"""``python -m salakseg`` is the ``salakseg`` command."""

from salakseg.cli.main import main

main()
