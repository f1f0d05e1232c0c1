"""What is known of the process and of kernels that earlier ones compiled."""

import importlib.util
import os

from seqbag.process import compiled

MODULE = """
from numba import njit

@njit(cache=True)
def doubled(x):
    return 2 * x

@njit(cache=True)
def doubled_twice(x):
    return 4 * x
"""


def test_a_kernel_is_compiled_once_it_was_called(tmp_path):
    path = tmp_path / "made_up.py"
    path.write_text(MODULE)
    specification = importlib.util.spec_from_file_location("package.made_up", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert not compiled(module.doubled)
    assert module.doubled_twice(1) == 4
    assert not compiled(module.doubled), "of another kernel nothing follows"
    assert module.doubled(1) == 2
    assert compiled(module.doubled)
    for file in os.listdir(module.doubled.stats.cache_path):
        if file.startswith("made_up"):
            os.remove(os.path.join(module.doubled.stats.cache_path, file))
    assert not compiled(module.doubled)
