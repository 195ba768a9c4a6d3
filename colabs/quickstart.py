# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A loop instead of a stack
#
# [![Open in Colab][badge]][colab]
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/loopformer/loopformer/blob/main/colabs/quickstart.ipynb
#
# A looped model applies one block again and again. Here is the loop by itself,
# then a small model that solves Sudoku with it: trained, run deeper and
# shallower than it was trained, and stopped when it has settled.

# %% [markdown]
# **Install.** Skipped where loopformer is there already. The jax of the
# runtime, with its drivers, is held at the version it has.

# %%
import importlib.metadata
import importlib.util
import pathlib

if importlib.util.find_spec('loopformer') is None:
  source = 'git+https://github.com/loopformer/loopformer@v0.1.0'
  held = [
    f'{found.name}=={found.version}'
    for found in importlib.metadata.distributions()
    if found.name.startswith('jax')
  ]
  pathlib.Path('held.txt').write_text('\n'.join(held))
  # %pip install --quiet --constraint held.txt "loopformer[colab] @ {source}"

# %%
import os
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import loopformer
from loopformer import core
from loopformer.bin import cli
from loopformer.evaluate import measure, plots
from loopformer.tasks.sudoku import BLANK
from loopformer.train.experiment import from_dict
from loopformer.train.loop import train
from loopformer.train.restore import subject_of

print('loopformer', loopformer.__version__, 'with jax', jax.__version__)
print('on', jax.devices()[0].device_kind)

# %% [markdown]
# **Parameters.** `FAST` is for checking that the notebook runs: a smaller model
# that learns only the beginnings. It is on under continuous integration, and
# `LOOPFORMER_FAST=0` or `=1` decides otherwise.

# %%
checked = 'CI' in os.environ or 'PYTEST_VERSION' in os.environ
FAST = os.environ.get('LOOPFORMER_FAST', str(int(checked))) == '1'
WORKDIR = tempfile.mkdtemp()  # name a folder of your own to keep the run
print('FAST =', FAST)

# %% [markdown]
# ## 1. The loop
#
# A step takes a state to the next one. This one, $h \leftarrow c\,h + b$, has
# its fixed point at $b / (1 - c)$. Each row has a $c$ of its own and stops by
# itself, once a step changes it by less than a millionth.


# %%
def step(state_BD, aux, args, info):
  rate_BD, offset_BD = args
  return rate_BD * state_BD + offset_BD, aux


def solve(args, adjoint=None):
  halt = core.fixed_point(rtol=1e-6)
  start_BD = jnp.zeros_like(args[1])
  return core.iterate(
    step, start_BD, args, halt=halt, max_steps=100, adjoint=adjoint
  )


args = jnp.array([[0.1], [0.5], [0.8]]), jnp.ones((3, 1))
result = solve(args)
print('steps  ', result.steps_B)
print('state  ', result.state[:, 0])
print('why    ', [core.Cause(cause).name for cause in result.cause_B.tolist()])

# %% [markdown]
# How the loop is differentiated is a choice of its own. `full` goes back
# through every step, `implicit` solves one linear equation at the fixed point,
# `phantom` takes a few steps from there. All agree with the derivative of $b /
# (1 - c)$; `one_step` is the cheapest and is biased.

# %%
adjoints = {
  'full': core.full(),
  'implicit': core.implicit(),
  'phantom': core.phantom(80, tau=1.0),
  'one_step': core.one_step(),
}


def slope(function):
  """d sum(function) / dc, row by row."""
  return jax.grad(lambda args: jnp.sum(function(args)))(args)[0][:, 0]


exact_B = slope(lambda args: args[1] / (1 - args[0]))
slopes = {
  name: slope(lambda args, a=adjoint: solve(args, a).state)
  for name, adjoint in adjoints.items()
}
for name, slope_B in {'b / (1 - c)': exact_B, **slopes}.items():
  print(f'{name:12s}', np.round(slope_B, 4))

# %% [markdown]
# ## 2. Train a looped transformer
#
# The experiment is the one behind `make demo`, trained half as long: a
# `universal` transformer, two tied layers looped eight times, on 4x4 Sudoku. It
# is a mapping until `from_dict` checks it, so any field can be changed by name.

# %%
config = cli.load_config('universal', 'sudoku4')
config['train'] |= {'steps': 300, 'tensorboard': False}
if FAST:
  config['model']['layers'] = 1
  config['model']['block'] |= {'width': 32, 'hidden': 64}
  config['loop']['max_steps'] = 4
  config['train'] |= {'steps': 200, 'batch_size': 32}
experiment = from_dict(config)
DEPTH = experiment.loop.max_steps

outcome = train(experiment, WORKDIR)
print(outcome.task.describe())

# %% [markdown]
# The trained model, and boards whose classes it has never seen under any
# symmetry. `exact` counts boards that are right in every cell, `cell` the blank
# cells that are right.

# %%
task = outcome.task
subject = subject_of(outcome.setup, outcome.state)
boards = task.heldout(256 if FAST else 2048)

# %% [markdown]
# ## 3. Depth is chosen after training
#
# One set of weights, run for more or fewer recurrences than it was trained
# with.

# %%
sweep = measure.depth_sweep(
  subject,
  task,
  boards,
  specs=[{'name': 'fixed_steps'}],
  depths=(1, 2, 3, 4, 6, 8, 16, 32),
  batch_size=256,
)
path = os.path.join(WORKDIR, 'depth_sweep.png')
metric = 'cell' if FAST else 'exact'
plots.depth_sweep(
  path, {'universal': sweep}, trained_depth=DEPTH, metric=metric
)
Image(path, width=600)

# %% [markdown]
# ## 4. Stop when it has settled
#
# Easy boards need fewer recurrences than hard ones. `fixed_point` stops a board
# once its state moves by less than `rtol`, relative to its size. A batch lasts
# as long as its slowest board, so the most steps are told beside the mean.

# %%
rtols = (0.1,) if FAST else (0.3, 0.1, 0.03)
halted = measure.depth_sweep(
  subject,
  task,
  boards,
  specs=[{'name': 'fixed_point', 'rtol': rtol} for rtol in rtols],
  depths=(16,),
  batch_size=256,
)
print('rule                   exact    cell   mean steps   most')
for row in sweep[:-1] + halted:
  print(
    f'{row["rule"]:20s} {row["exact"]:7.1%} {row["cell"]:7.1%}'
    f' {row["mean_steps"]:12.1f} {row["max_steps"]:6.0f}'
  )

# %% [markdown]
# ## 5. Watch one board
#
# The board that took the most recurrences among those that come out right.
# Clues are black, answers blue if right and orange if wrong, and the paler an
# answer, the less sure the model is.

# %%
few = {name: value[:256] for name, value in boards.items()}
guess_RBT, sure_RBT, residual_RB = measure.watch(subject, few, steps=8)
right_RB = (guess_RBT == few['labels']).all(-1)
since_B = np.where(right_RB[-1], (~right_RB).sum(0), -1)
chosen = int(since_B.argmax())


def draw(axes, guess_T, sure_T):
  clue_T, label_T = few['inputs'][chosen], few['labels'][chosen]
  axes.set(xlim=(0, 4), ylim=(4, 0), xticks=(0, 2, 4), yticks=(0, 2, 4))
  axes.grid(color='black')
  axes.tick_params(length=0, labelbottom=False, labelleft=False)
  for i, token in enumerate(guess_T):
    given = clue_T[i] != BLANK
    answer = plots.COLOURS[0 if token == label_T[i] else 1]
    axes.text(
      i % 4 + 0.5,
      i // 4 + 0.5,
      token - 1,
      color='black' if given else answer,
      alpha=1.0 if given else float(sure_T[i]),
      ha='center',
      va='center',
    )


figure, all_axes = plt.subplots(2, 4, figsize=(8, 4.4))
for t, axes in enumerate(all_axes.flat):
  draw(axes, guess_RBT[t, chosen], sure_RBT[t, chosen])
  moved = residual_RB[t, chosen]
  axes.set_title(f'recurrence {t + 1}, moved {moved:.0%}', fontsize=8)

# %% [markdown]
# **What must hold.** Three adjoints give the derivative in closed form, boards
# settle before the cap, and looping helps: many more boards are right after all
# recurrences than after one. In `FAST` a blank cell need only be right more
# often than one time in three; a guess is right one time in four.

# %%
for name in ('full', 'implicit', 'phantom'):
  np.testing.assert_allclose(slopes[name], exact_B, rtol=1e-3)

assert all(row['mean_steps'] < 16 for row in halted), halted
by_depth = {row['steps']: row for row in sweep}
if FAST:
  assert by_depth[DEPTH]['cell'] > 1 / 3, by_depth
else:
  assert by_depth[DEPTH]['exact'] > by_depth[1]['exact'] + 0.2, by_depth
