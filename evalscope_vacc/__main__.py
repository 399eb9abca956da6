"""``python -m evalscope_vacc``."""

from evalscope_vacc.cli.app import main

if __name__ == "__main__":
    main()
