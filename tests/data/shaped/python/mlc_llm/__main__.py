"""The command, by ``python -m`` alone: ``sum``, ``step``, ``tokens``; no ``--version``."""

import argparse

import mlc_llm


def main() -> None:
    """Print what the library computes."""
    parser = argparse.ArgumentParser("mlc_llm")
    parser.add_argument("subcommand", choices=["sum", "step", "tokens"])
    parser.add_argument("value")
    args = parser.parse_args()
    if args.subcommand == "tokens":
        print(mlc_llm.LIBRARY.mlc_tokens(args.value.encode()))
    else:
        function = {"sum": mlc_llm.total, "step": mlc_llm.LIBRARY.mlc_step}[args.subcommand]
        print(function(int(args.value)))


if __name__ == "__main__":
    main()
