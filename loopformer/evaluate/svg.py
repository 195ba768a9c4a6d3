"""Inline SVG as text: escaped tags, scales, and a frame with two axes."""

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Sequence

Point = tuple[float, float]
Scale = Callable[[float], float]


def tag(name: str, content: str = '', **attributes: object) -> str:
  """One element; `class_` gives `class`, `stroke_width` gives `stroke-width`.

  `content` is markup and is kept; attributes are escaped.
  """
  written = ''.join(
    f' {key.strip("_").replace("_", "-")}="{_written(value)}"'
    for key, value in attributes.items()
  )
  return f'<{name}{written}>{content}</{name}>'


def text(at: Point, words: str, class_: str, anchor: str = 'start') -> str:
  """Words at a point, escaped."""
  x, y = at
  content = html.escape(words)
  return tag('text', content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(a: Point, b: Point, class_: str) -> str:
  """A straight line."""
  return tag('line', x1=a[0], y1=a[1], x2=b[0], y2=b[1], class_=class_)


def path(points: Iterable[Point], class_: str, *, closed: bool = False) -> str:
  """Straight segments through the points."""
  steps = ' L'.join(f'{x:.1f} {y:.1f}' for x, y in points)
  return tag('path', d=f'M{steps}{"Z" if closed else ""}', class_=class_)


def _written(value: object) -> str:
  if isinstance(value, float):
    return f'{value:.1f}'.removesuffix('.0')
  return html.escape(str(value), quote=True)


def linear(domain: Point, span: Point) -> Scale:
  """The affine map of `domain` to `span`; an empty domain to the middle."""
  low, high = domain
  if high <= low:
    return lambda value: (span[0] + span[1]) / 2
  return lambda v: span[0] + (v - low) / (high - low) * (span[1] - span[0])


def log(domain: Point, span: Point) -> Scale:
  """As `linear`, in the logarithm; what lies below the domain is put on it."""
  low = domain[0]
  inner = linear((math.log(low), math.log(domain[1])), span)
  return lambda value: inner(math.log(max(value, low)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A plot of `width` x `height` units with room for labels around it.

  Attributes:
    x: data to horizontal units.
    y: data to vertical units.
    x_ticks: (value, label) pairs.
    y_ticks: (value, label) pairs.
    x_title: what runs along x, under the axis.
    y_title: what runs along y, above it, read horizontally.
  """

  x: Scale
  y: Scale
  x_ticks: Sequence[tuple[float, str]]
  y_ticks: Sequence[tuple[float, str]]
  x_title: str
  y_title: str

  def at(self, x: float, y: float) -> Point:
    """Where a data point lies."""
    return self.x(x), self.y(y)

  def draw(self, body: Iterable[str], *, id_: str, label: str) -> str:
    """The axes and, over them, `body`; `label` says it to a screen reader."""
    return tag(
      'svg',
      tag('title', html.escape(label)) + self._axes() + ''.join(body),
      id=id_,
      class_='chart',
      viewBox=f'0 0 {WIDTH} {HEIGHT}',
      role='img',
    )

  def _axes(self) -> str:
    parts = [text((0, 14), self.y_title, 'title')]
    for value, label in self.y_ticks:
      y = self.y(value)
      parts.append(line((LEFT, y), (RIGHT, y), 'grid'))
      parts.append(text((LEFT - 8, y + 4), label, 'tick', 'end'))
    for value, label in self.x_ticks:
      parts.append(text((self.x(value), BOTTOM + 20), label, 'tick', 'middle'))
    parts.append(line((LEFT, BOTTOM), (RIGHT, BOTTOM), 'axis'))
    middle = (LEFT + RIGHT) / 2
    parts.append(text((middle, BOTTOM + 44), self.x_title, 'title', 'middle'))
    return ''.join(parts)


WIDTH, HEIGHT = 520, 376
LEFT, RIGHT, TOP, BOTTOM = 44, 508, 46, 324
ACROSS, UP = (LEFT, RIGHT), (BOTTOM, TOP)
