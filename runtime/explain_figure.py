"""An explanation as a picture: bars of what each event and each word adds to the score, as one SVG file."""

from __future__ import annotations

from html import escape

from edgerec.runtime.explain import Explanation

WIDTH, LABEL, LINE = 720, 300, 22  # pixels
MOST = 15  # bars of a kind: the largest, the others as one sum
COLORS = {True: "#2a7f62", False: "#b3443c"}  # adds, takes away


def svg(explained: Explanation) -> str:
    """Return an explanation as an SVG document."""
    events = [(f"{one.title} ({one.age} ago)", one.contribution) for one in explained.events]
    bars = largest(events) + [("bias", explained.bias)]
    bars += [("taken before", explained.repeats)] if explained.repeats else []
    parts = [("What adds to the score", bars)]
    if explained.words:
        words = [(one.word, one.occlusion) for one in explained.words]
        parts.append(("Words of its text, left out (occlusion)", largest(words)))
    lines = [text(10, 24, f"{explained.title}: rank {explained.rank}, score {explained.score:.2f}", "bold")]
    top = 44
    for title, values in parts:
        lines.append(text(10, top + 14, title, "bold"))
        lines += drawn(values, top + LINE)
        top += LINE * (len(values) + 1) + 12
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *lines, "</svg>", ""])


def largest(values: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the largest values by size, and the others as one."""
    ordered = sorted(values, key=lambda one: -abs(one[1]))
    rest = ordered[MOST:]
    return ordered[:MOST] + ([(f"{len(rest)} others", sum(value for _, value in rest))] if rest else [])


def drawn(values: list[tuple[str, float]], top: int) -> list[str]:
    """Return a bar per value, left and right of a common zero, in proportion to the largest."""
    room, most = (WIDTH - LABEL - 140) / 2, max([abs(value) for _, value in values] + [1e-12])
    lines, zero = [], LABEL + 60 + room
    for place, (name, value) in enumerate(values):
        length, y = room * abs(value) / most, top + LINE * place
        left = zero if value >= 0 else zero - length
        lines.append(text(10, y + 14, name if len(name) <= 42 else f"{name[:41]}…"))
        lines.append(f'<rect x="{left:.1f}" y="{y + 3}" width="{length:.1f}" height="14" fill="{COLORS[value >= 0]}"/>')
        lines.append(text(left + length + 5 if value >= 0 else left - 50, y + 14, f"{value:+.3f}"))
    return lines


def text(x: float, y: float, content: str, weight: str = "normal") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}">{escape(content)}</text>'
