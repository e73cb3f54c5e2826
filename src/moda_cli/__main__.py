"""`python -m moda_cli` is `moda`."""

from moda_cli.cli import app

if __name__ == "__main__":
    app()
