"""``python -m taylorir`` is the same as the command ``taylorir``."""

from taylorir.cli.main import main

if __name__ == "__main__":
    main()
