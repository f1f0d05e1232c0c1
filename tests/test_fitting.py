"""From counts to a frozen layer."""

import subprocess
import sys

import pytest

REHEARSED = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from seqbag.config import TrainConfig
from seqbag.fitting import Fitter
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.progress import Silent
from seqbag.statistics import ShardStatistics
from tests.memory import MemorySource

kind, activation = sys.argv[1:]
rows = ["disk is full", "all is well", "all is full", "disk is well", "disk"] * 40
rows = rows if kind == "text" else [row.split() for row in rows]
config = TrainConfig(activation=activation, valid_fraction=0.3)

def loaded():
    modules = [module for name, module in sys.modules.items() if name.startswith("seqbag.kernels")]
    kernels = {k for module in modules for k in vars(module).values() if isinstance(k, Dispatcher)}
    return {(kernel.__name__, str(signature)) for kernel in kernels for signature in kernel.signatures}

empty = ShardStatistics.none(kind, config)
empty.rehearse()
assert empty.rows == empty.counts.bags.rows == empty.vocabulary.counts.sum() == 0
before = loaded()
source = MemorySource(kind, (rows, ["bad", "good", "bad", "good", "bad"] * 40))
shard = ShardStatistics.count(source, config, texts=True)
print(sorted(loaded() - before))
fitter = Fitter(config, np.random.default_rng(0), Workers(1), Silent())
before = fitter.rng.bit_generator.state, shard.counts.bags.rows, loaded()
fitter.rehearsal(shard.counts)()
after = fitter.rng.bit_generator.state, shard.counts.bags.rows, loaded()
assert before[:2] == after[:2]
assert after[2] > before[2]
classes, _, lookup = shard.settle("rows")
network = Network(config, classes, lookup)
fitter.choose_past(shard.counts, network)
before = loaded()
fitter.fit(shard.counts, network, "")
print(sorted(loaded() - before))
"""


@pytest.mark.parametrize(("kind", "activation"), [("text", "relu"), ("tokens", "sign")])
def test_rehearsals_load_all_that_counting_and_training_need_and_change_nothing(kind, activation):
    """In a process of its own, where no other test has loaded a kernel."""
    done = subprocess.run([sys.executable, "-c", REHEARSED, kind, activation], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")
