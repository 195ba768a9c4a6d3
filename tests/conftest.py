"""Every test runs with annotations checked and compiled programs kept.

Set before anything imports jax. Through the environment, not `jax.config`, so
that the processes which tests start behave alike.
"""

import importlib.metadata
import os
import pathlib

import jaxtyping

from tests import typecheck

ROOT = pathlib.Path(__file__).parents[1]

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Most of the suite's time goes into compiling programs that run once. At this
# level LLVM takes half of it, and XLA's older emitters of fused loops half of
# what is left; flags that a jaxlib does not know would end the process. A level
# named in XLA_FLAGS wins: `make test-slow` tests what users run.
_LEVEL = '--xla_backend_optimization_level'
_OF_0_10 = (
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_cpu_parallel_codegen_split_count=1',
)
_FLAGS = os.environ.get('XLA_FLAGS', '')
if _LEVEL not in _FLAGS:
  _KNOWN = importlib.metadata.version('jaxlib').startswith('0.10.')
  _QUICK = (f'{_LEVEL}=0', *(_OF_0_10 if _KNOWN else ()))
  os.environ['XLA_FLAGS'] = ' '.join([_FLAGS, *_QUICK]).strip()

# Compiled programs, kept between runs: a second run of the suite hardly
# compiles. LOOPFORMER_TEST_CACHE chooses another folder; empty means none.
_CACHE = os.environ.get('LOOPFORMER_TEST_CACHE', str(ROOT / '.jax_cache'))
if _CACHE:
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _CACHE)
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

# Shapes and dtypes in signatures are executed: a wrong one raises where it
# enters. Costs microseconds a call, and nothing inside a compiled program.
jaxtyping.install_import_hook('loopformer', f'{typecheck.__name__}.checked')
