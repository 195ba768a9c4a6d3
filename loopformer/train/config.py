"""From mappings to frozen dataclasses, with errors that name the field."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Union

from loopformer.zoo.choices import check_value, nearest


def from_mapping(
  cls: type, values: Mapping[str, Any], *, path: str = ''
) -> Any:
  """Builds dataclass `cls` from nested mappings.

  Integers pass for floats and lists for tuples; nothing else is converted.
  A seed is a number of 32 bits.

  Raises:
    ValueError: for an unknown field (with the nearest valid name), a missing
      one, a wrong type, a number that is not finite, or a value the dataclass
      refuses.
  """
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for key in values:
    if key not in fields:
      raise ValueError(
        f'{_join(path, key)} is not a field; {path or "the config"} has '
        f'{sorted(fields)}{nearest(key, fields)}.'
      )
  hints = typing.get_type_hints(cls)
  parsed = {
    key: _parse(hints[key], value, _join(path, key))
    for key, value in values.items()
  }
  if not 0 <= parsed.get('seed', 0) < 2**32:
    raise ValueError(
      f'{_join(path, "seed")} must be in [0, 2**32), got {parsed["seed"]}.'
    )
  try:
    return cls(**parsed)
  except TypeError as error:
    raise ValueError(f'{path or "config"}: {error}.') from None
  except ValueError as error:
    raise ValueError(_join(path, str(error))) from None


def to_mapping(value: Any) -> Any:
  """The inverse of `from_mapping`: plain dicts, lists and numbers, for JSON."""
  if dataclasses.is_dataclass(value):
    return {
      field.name: to_mapping(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  if isinstance(value, Mapping):
    return {str(key): to_mapping(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_mapping(item) for item in value]
  return value


def differences(old: Any, new: Any, *, path: str = '') -> list[str]:
  """Lines `field: old -> new` for everything that differs."""
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    lines = []
    for key in sorted({*old, *new}):
      lines += differences(old.get(key), new.get(key), path=_join(path, key))
    return lines
  return [] if old == new else [f'{path}: {old!r} -> {new!r}']


def _join(path, key):
  return f'{path}.{key}' if path else str(key)


def _parse(hint, value, path):
  """Checks one value against its annotation."""
  if hint is Any:
    return value
  origin, options = typing.get_origin(hint), typing.get_args(hint)
  if origin in (Union, types.UnionType):
    if value is None and type(None) in options:
      return None
    rest = [option for option in options if option is not type(None)]
    return _parse(rest[0], value, path)
  if dataclasses.is_dataclass(hint):
    if not isinstance(value, Mapping):
      raise _wrong_type(path, 'a mapping', value)
    return from_mapping(hint, value, path=path)
  if origin in (Mapping, dict):
    if not isinstance(value, Mapping):
      raise _wrong_type(path, 'a mapping', value)
    return to_mapping(value)
  if origin in (tuple, list, Sequence):
    if not isinstance(value, (list, tuple)):
      raise _wrong_type(path, 'a list', value)
    return tuple(_parse(options[0], item, path) for item in value)
  check_value(path, hint, value)
  return float(value) if hint is float else value


def _wrong_type(path, wanted, value):
  return ValueError(f'{path} must be {wanted}, got {value!r}.')
