"""What the failures of other programs mean: one table a program, a row a failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.core.errors import PipelineError


@dataclass(frozen=True)
class Failure:
    """A row: what the output shows, what it means, what to do.

    Attributes:
        pattern: Regular expression that is searched in the output (``^`` and ``$`` match at
            each line).
        message: One sentence; ``{name}`` stands for a named group of the pattern, or for
            a value that :func:`explain` is given.
        remedy: One sentence, with the same names.
    """

    pattern: str
    message: str
    remedy: str


def explain(
    output: str, failures: Sequence[Failure], otherwise: PipelineError, **values: str
) -> PipelineError:
    """The error behind a program's output: of the first row that matches, else
    ``otherwise``; the end of the output is its detail. ``values`` are more names for messages.
    """
    detail = "\n".join(output.splitlines()[-12:])
    for failure in failures:
        match = re.search(failure.pattern, output, re.MULTILINE)
        if match:
            names = values | {name: text or "" for name, text in match.groupdict().items()}
            message, remedy = failure.message.format(**names), failure.remedy.format(**names)
            return PipelineError(message, remedy, detail)
    return PipelineError(otherwise.message, otherwise.remedy, detail)
