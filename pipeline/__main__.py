"""`python -m pipeline` is `skipstream`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
