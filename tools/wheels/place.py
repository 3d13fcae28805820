"""Where a wheel is built: on this system, or in a container with an older glibc."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.core import console, process
from tools.wheels import build, container
from tools.wheels.build import WheelPlan
from tools.wheels.flavours import Flavour
from tools.wheels.source import Tree

COMPILED = ("CMakeLists.txt", "meson.build", "Cargo.toml")  # at the top of such a source


@dataclass(frozen=True)
class Place:
    """This system, or a container of an image."""

    image: str = ""  # empty for this system

    def __str__(self) -> str:
        return f"in {self.image}" if self.image else "on this system"

    def has(self, program: str) -> bool:
        """Whether a program is on the PATH there."""
        if not self.image:
            return shutil.which(program) is not None
        script = ["--entrypoint=/bin/sh", self.image, "-c", 'command -v "$0"', program]
        command = ["docker", "run", "--rm", "--network=none", *script]
        return process.run(command, check=False).code == 0

    def environment(
        self,
        plan: WheelPlan,
        folder: Path,
        variables: Mapping[str, str],
        env: Mapping[str, str],
    ) -> dict[str, str]:
        """That of a build there, of the copy in ``folder``."""
        if not self.image:
            return build.build_environment(plan, folder, variables, env)
        # The image gets it; and the cache is the user's, so that the next build hits.
        cache = "sccache" if build.is_sccache_set_up(env) else "ccache"
        plan, inside = replace(plan, compiler_cache=cache), container.variables(env)
        return build.build_environment(plan, container.PROJECT, variables, inside)

    def build(
        self, plan: WheelPlan, folder: Path, work: Path, env: Mapping[str, str],
        constraints: Iterable[str],
    ) -> Path:  # fmt: skip
        """Build the copy in ``folder``; returns the wheel, not repaired."""
        if not self.image:
            return build.run_build(folder, work, env, plan.installer, constraints)
        bundle = plan.certificates
        return container.run_build(self.image, folder, work, env, constraints, bundle)

    def repairer(self, work: Path) -> Sequence[str]:
        """What stands before the program that repairs wheels in ``work``."""
        if not self.image:
            return (sys.executable, "-m")
        return container.repairer(self.image, work)

    def promise(self, plan: WheelPlan) -> str:
        """The oldest system that a wheel built there must fit, a tag; empty for no promise."""
        return plan.manylinux or container.promise(self.image)


def choose(plan: WheelPlan, flavour: Flavour, tree: Tree) -> Place:
    """A container for compiled sources on Linux, where there is an engine (PipelineError if no
    image can be had); else this system.
    """
    compiled = any((tree.folder / name).exists() for name in COMPILED)
    if sys.platform != "linux" or not compiled or not plan.container:
        return Place()
    if not container.answers():
        console.warn(
            "no Docker engine answers: the wheel is built on this system, and fits none that "
            "is older"
        )
        return Place()
    return Place(container.choose(flavour.image or plan.image, Path(plan.root)))
