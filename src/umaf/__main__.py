"""`python -m umaf`: the command line, for launchers that start modules, such as accelerate."""

from umaf.cli import main

if __name__ == "__main__":
    main()
