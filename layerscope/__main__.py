"""``python -m layerscope``: the command line, where its console script is not on the path."""

from layerscope.cli.main import main

if __name__ == "__main__":
    main()
