"""The command: ``sum``, and no ``--version``, as upstream has none."""

import argparse

import mlc_llm


def main() -> None:
    """Print the sum that the library computes."""
    parser = argparse.ArgumentParser("mlc_llm")
    parser.add_argument("count", type=int, nargs="?", default=10)
    print(mlc_llm.total(parser.parse_args().count))


if __name__ == "__main__":
    main()
