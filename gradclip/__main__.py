"""``python -m gradclip``: the same as the command ``gradclip``."""

from gradclip._cli import main

if __name__ == "__main__":
    main()
