"""`python -m galen`: the same as the command `galen`."""

from galen.main import main

if __name__ == "__main__":
    main()
