"""The project in the shape of MLC-LLM, built in a container: Rust, cargo and CMake are its."""

import sys

import pytest

from tests.wheels.test_wheels_shaped import World, companions, world

__all__ = ["companions", "world"]  # fixtures


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="Linux wheels are built in containers")
def test_in_a_container(world: World) -> None:
    """Compiled, repaired and held against its companion as on this system, and fit for the
    production image. Where no image can be pulled it is the development image that serves.
    """
    unset = dict.fromkeys(("GH_TOKEN", "GITHUB_TOKEN", "PLATFORMS"), "")
    env = {"IMAGE_NAME": "tester/wheels", "REGISTRY": "registry.invalid"} | unset
    done = world.project.run("images", "development", "--no-push", env=env)
    assert done.returncode == 0, done.stderr
    done = world.build(**env, WHEEL_CONTAINER="auto")
    assert done.returncode == 0, done.stderr
    assert "1 wheel produced in" in done.stderr  # cibuildwheel's words
    assert "Compile requests executed" in done.stderr  # sccache is in there, for Rust
    assert "2 of libtvm_runtime.so (shaped-tvm 0.26.0)" in done.stderr
    assert any("manylinux_2_" in name for name in world.dist)
