"""A module's dotted name leads to the module, whatever else its package exports."""

import pkgutil
import subprocess
import sys

import pytest

import layerscope

WALK = """
import importlib, random, sys

names = sys.argv[2:]
random.Random(int(sys.argv[1])).shuffle(names)
for name in names:
    importlib.import_module(name)
for name in names:
    reached = sys.modules["layerscope"]
    for word in name.split(".")[1:]:
        reached = getattr(reached, word, None)
    if reached is not sys.modules[name]:
        print(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 1))
def test_no_package_exports_another_thing_under_a_modules_name(seed):
    found = pkgutil.walk_packages(layerscope.__path__, "layerscope.")
    names = [module.name for module in found if module.name != "layerscope.__main__"]
    done = subprocess.run(
        [sys.executable, "-c", WALK, str(seed), *names], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == []
