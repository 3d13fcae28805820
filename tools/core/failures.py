"""What the failures of other programs mean: one table a program, a row a failure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.core.errors import PipelineError


@dataclass(frozen=True)
class Failure:
    """A row. In both sentences ``{name}`` stands for a named group of the pattern, or for a
    value that :func:`explain` is given.
    """

    pattern: str  # searched in the output; ^ and $ match at each line
    message: str  # what it means
    remedy: str  # what to do


def explain(
    output: str, failures: Sequence[Failure], otherwise: PipelineError, **values: str
) -> PipelineError:
    """The error behind a program's output: of the first row that matches, else
    ``otherwise``; the end of the output is its detail.
    """
    detail = "\n".join(output.splitlines()[-12:])
    for failure in failures:
        if match := re.search(failure.pattern, output, re.MULTILINE):
            names = values | match.groupdict(default="")
            message, remedy = failure.message.format(**names), failure.remedy.format(**names)
            return PipelineError(message, remedy, detail)
    return PipelineError(otherwise.message, otherwise.remedy, detail)
