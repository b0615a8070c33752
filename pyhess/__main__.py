"""``python -m pyhess``: the command line where the script is not on the path, for example under ``mpiexec``."""

from .cli import main

if __name__ == "__main__":
    main()
