"""``python -m salakseg`` is the ``salakseg`` command."""

from salakseg.cli.main import main

if __name__ == "__main__":  # loader workers import this module again where processes are spawned
    main()
