"""A published config, read field by field."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = object()
LARGEST = 2**31 - 1  # counters are int32


class Fields:
  """The fields of a config that are not read yet; what is left is refused.

  Raises:
    ValueError: naming a field that is missing, or that has a value which is of
      another type or cannot be honoured.
  """

  def __init__(self, config: Mapping[str, Any], at: str = 'config'):
    self.left = dict(config)
    self.at = at

  def take(self, name: str, default: Any = MISSING) -> Any:
    """The field's value, or its published default."""
    if name not in self.left and default is MISSING:
      raise ValueError(f'{self.at}.{name} must be given, got none.')
    return self.left.pop(name, default)

  def group(self, name: str) -> 'Fields':
    """An object inside the config; null stands for an empty one."""
    value = self.take(name, None) or {}
    if not isinstance(value, Mapping):
      raise ValueError(f'{self.at}.{name} must be an object, got {value!r}.')
    return Fields(value, f'{self.at}.{name}')

  def size(self, name: str, default: Any = MISSING) -> int:
    """A whole number that an int32 holds; null stands for the default."""
    value = self.take(name, default)
    value = default if value is None else value
    if not _is_number(value) or value < 0 or value != int(value):
      raise ValueError(
        f'{self.at}.{name} must be a whole number >= 0, got {value!r}.'
      )
    if value > LARGEST:
      raise ValueError(f'{self.at}.{name} must be <= {LARGEST}, got {value!r}.')
    return int(value)

  def number(self, name: str, default: Any = MISSING) -> float:
    """Any finite number."""
    value = self.take(name, default)
    if not _is_number(value):
      raise ValueError(f'{self.at}.{name} must be a number, got {value!r}.')
    return float(value)

  def optional(self, name: str) -> float:
    """A finite number; zero for null and for none."""
    if self.left.get(name) is None:
      self.left.pop(name, None)
      return 0.0
    return self.number(name)

  def flag(self, name: str, default: Any = MISSING) -> bool:
    """True or false."""
    value = self.take(name, default)
    if not isinstance(value, bool):
      raise ValueError(
        f'{self.at}.{name} must be true or false, got {value!r}.'
      )
    return value

  def choice(
    self, name: str, known: Mapping[Any, Any], default: Any = MISSING
  ) -> Any:
    """What a known value stands for."""
    value = self.take(name, default)
    if isinstance(value, (dict, list)) or value not in known:
      raise ValueError(
        f'{self.at}.{name} must be one of {list(known)}, got {value!r}.'
      )
    return known[value]

  def only(self, name: str, *allowed: Any) -> None:
    """Refuses any value but these, the first of which is the default."""
    value = self.take(name, allowed[0])
    if value not in allowed:
      raise ValueError(
        f'{self.at}.{name} must be one of {list(allowed)}, got {value!r}.'
      )

  def ignore(self, names: Iterable[str]) -> None:
    """Fields that do not change what the model computes."""
    for name in names:
      self.left.pop(name, None)

  def done(self) -> None:
    """Refuses whatever was not read."""
    if self.left:
      raise ValueError(
        f'{self.at} holds fields that are not known: {sorted(self.left)}.'
      )


def _is_number(value) -> bool:
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and abs(value) <= sys.float_info.max
