"""What loopformer is, needs and installs; the tools are in pyproject.toml."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent

REQUIRES = [
  'absl-py>=2.1',
  'chex>=0.1.90',
  'flax>=0.12',
  'grain>=0.2.15',
  # tensorflow-datasets imports it to prepare a builder but does not list it.
  'importlib_resources>=6.0',
  'jax>=0.10',
  'jaxtyping>=0.3',
  'matplotlib>=3.9',
  'ml-collections>=1.0',
  'numpy>=2.0',
  'optax>=0.2.8',
  # At least 0.12.3: the first release that writes a commit marker on every
  # storage backend. Below 0.13: the layout of a step directory, which our
  # manifest hashes, changes between minor releases until 1.0.
  'orbax-checkpoint>=0.12.3,<0.13',
  # At least 4.9.10: the first release seen to read and write ArrayRecord with
  # no TensorFlow installed.
  'safetensors>=0.5',
  'tensorflow-datasets>=4.9.10',
  'tensorboardX>=2.6.2',
  'tqdm>=4.66',
]

EXTRAS = {
  'dev': [
    'beartype>=0.19',
    'hypothesis>=6.100',
    'ipykernel>=6.29',
    'jupytext>=1.16',
    'nbmake>=1.5.4',
    'pytest>=8.3',
    'pytest-xdist>=3.6',
    'tokenizers>=0.21',
    # One minor series each, because what the two accept changes from one to
    # the next, and the same commit must pass twice.
    'pyrefly>=1.4,<1.5',
    'ruff>=0.17,<0.18',
  ],
  'tpu': ['jax[tpu]>=0.10'],
  # CUDA 12 runs on every driver since 2023; `pip install 'jax[cuda13]'` after
  # this one is fine too.
  'cuda': ['jax[cuda12]>=0.10'],
  # Compiles for a TPU on a machine without one. Licensed under the Google Cloud
  # Platform terms, hence never installed by default.
  'aot': ['libtpu>=0.0.42'],
  # What a notebook shows beyond plots; never anything that moves the jax of the
  # runtime.
  'colab': ['ipykernel>=6.29', 'treescope>=0.1.9'],
  # Reads a tokenizer.json of Hugging Face; bytes need nothing.
  'tokenizers': ['tokenizers>=0.21'],
  # Benchmarks of language models through their usual harness.
  'lm_eval': ['lm_eval>=0.4.8'],
  # The same mathematics in PyTorch, for the benchmarks beside it. At least 2.6,
  # where torch.compile supports Python 3.13; no cap, so that an installed CPU
  # build is kept. HRM-Text came to transformers with 5.23.
  'peers': ['torch>=2.6', 'transformers>=5.23'],
}

SCRIPTS = {
  'loopformer-train': 'loopformer.bin.train:main',
  'loopformer-eval': 'loopformer.bin.evaluate:main',
  'loopformer-generate': 'loopformer.bin.generate:main',
  'loopformer-demo': 'loopformer.bin.demo:main',
  'loopformer-verify': 'loopformer.bin.verify:main',
  'loopformer-plan': 'loopformer.bin.plan:main',
}

# Configs live at the top of the repository, where one edits them, and are
# installed inside the package, so that no general name lands in site-packages.
CONFIGS = 'loopformer.experiments'


def version() -> str:
  """The version in loopformer/__init__.py, read as text, not imported."""
  text = (ROOT / 'loopformer' / '__init__.py').read_text(encoding='utf-8')
  return text.split("__version__ = '")[1].split("'")[0]


def packages() -> list[str]:
  """Those of loopformer/, and experiments/ as loopformer.experiments."""
  inner = find_packages('experiments')
  return [
    *find_packages(include=['loopformer', 'loopformer.*']),
    CONFIGS,
    *(f'{CONFIGS}.{name}' for name in inner),
  ]


if __name__ == '__main__':
  setup(
    name='loopformer',
    version=version(),
    description='Looped transformers in JAX: one loop, every published family.',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The loopformer authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=packages(),
    package_dir={CONFIGS: 'experiments'},
    package_data={
      'loopformer': ['py.typed'],
      'loopformer.evaluate': ['page/*'],
      CONFIGS: ['*.md', 'figures/*'],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={
      'console_scripts': [f'{name} = {path}' for name, path in SCRIPTS.items()]
    },
    classifiers=[
      'Development Status :: 3 - Alpha',
      'Intended Audience :: Science/Research',
      'Programming Language :: Python :: 3 :: Only',
      'Programming Language :: Python :: 3.11',
      'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
  )
