"""Training from the command line, on any number of processes: `accelerate launch -m helpers.training`."""

import argparse
import ast
import os
from typing import Any

from helpers.config import Config
from helpers.training.phases import train


def main(arguments: list[str] | None = None) -> None:
    """Train from the command line: `accelerate launch -m helpers.training`."""
    parser = argparse.ArgumentParser(description="Train on as many devices as `accelerate launch` is told.")
    parser.add_argument("--profile", help="paper, vivid, laptop, quick or smoke")
    parser.add_argument("--phase", choices=("warmup", "adversarial"), help="only this phase")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of helpers/config.py")
    options = parser.parse_args(arguments)
    if options.profile:
        os.environ["COLORIZE_PROFILE"] = options.profile
    cfg = Config.from_profile(**dict(_parse(item) for item in options.set))
    train(cfg, [options.phase] if options.phase else ("warmup", "adversarial"))


def _parse(item: str) -> tuple[str, Any]:
    """Split "batch_size=16" into name and value; what is no Python value is text."""
    name, _, text = item.partition("=")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


if __name__ == "__main__":
    main()
