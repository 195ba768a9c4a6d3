"""Every test runs with annotations checked and compiled programs kept.

Set before anything imports jax. Through the environment, not `jax.config`, so
that the processes which tests start behave alike.
"""

import os
import pathlib

import jaxtyping

from tests import typecheck

ROOT = pathlib.Path(__file__).parents[1]

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Most of the suite's time went into compiling programs that run once. At this
# level LLVM takes half of it; what XLA does before LLVM stays the same. A level
# named in XLA_FLAGS wins: `make test-slow` tests what users run.
_LEVEL = '--xla_backend_optimization_level'
_FLAGS = os.environ.get('XLA_FLAGS', '')
if _LEVEL not in _FLAGS:
  os.environ['XLA_FLAGS'] = f'{_FLAGS} {_LEVEL}=0'.strip()

# Compiled programs, kept between runs: a second run of the suite hardly
# compiles. LOOPFORMER_TEST_CACHE chooses another folder; empty means none.
_CACHE = os.environ.get('LOOPFORMER_TEST_CACHE', str(ROOT / '.jax_cache'))
if _CACHE:
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _CACHE)
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

# Shapes and dtypes in signatures are executed: a wrong one raises where it
# enters. Costs microseconds a call, and nothing inside a compiled program.
jaxtyping.install_import_hook('loopformer', f'{typecheck.__name__}.checked')
