"""SVG, drawn by hand: mask ages, stages, J by sequence. Same input, same bytes."""

from xml.sax.saxutils import escape

WIDTH, MARGIN = 760, 150
COLOURS = ("#3b6fb6", "#e08a2e", "#5a9e5a", "#b64f4f", "#8666a8", "#7a7a7a", "#c7a93a", "#4aa5a5")


class Canvas:
    """A white picture."""

    def __init__(self, height: float, title: str):
        self.height, self.parts = height, []
        self.rect(0, 0, WIDTH, height, "#ffffff")
        self.text(MARGIN, 22, title, size=15)

    def rect(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def line(self, points, colour, width=1.0):
        spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{spots}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def text(self, x, y, words, anchor="start", size=12, colour="#222222"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
                          f'fill="{colour}">{escape(words)}</text>')

    def legend(self, y, names):
        x = MARGIN
        for name, colour in zip(names, COLOURS, strict=False):
            self.rect(x, y - 9, 10, 10, colour)
            self.text(x + 14, y, name)
            x += 28 + 7 * len(name)

    def svg(self) -> str:
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" '
                f'font-family="sans-serif">\n' + "\n".join(self.parts) + "\n</svg>\n")


def nice(most: float) -> float:
    """A step that cuts 0..most into four to ten."""
    step = 1e-3
    while most / step > 10:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    return step


def axis(canvas: Canvas, most: float, top: float, bottom: float, unit: str):
    """Vertical lines with their numbers; gives back what turns a value into x."""
    scale = (WIDTH - MARGIN - 30) / most
    step, at = nice(most), 0.0
    while at <= most * 1.0001:
        x = MARGIN + at * scale
        canvas.line([(x, top), (x, bottom)], "#dddddd")
        canvas.text(x, bottom + 16, f"{at:g}", "middle")
        at += step
    canvas.text(WIDTH - 30, bottom + 32, unit, "end")
    return lambda value: MARGIN + value * scale


def ages(figures) -> str:
    """Share of instants whose masks were at most so old."""
    runs = {"as it is": figures.streaming, **figures.degrade}
    most = max(max(age for one in run["sequences"] for age in one["ages_ms"]) for run in runs.values()) * 1.05
    canvas = Canvas(330, "Mask age at every instant: share at most so old")
    top, bottom = 40.0, 260.0
    across = axis(canvas, most, top, bottom, "ms")
    for share in (0, 0.5, 0.95, 1):
        y = bottom - share * (bottom - top)
        canvas.line([(MARGIN, y), (WIDTH - 30, y)], "#dddddd")
        canvas.text(MARGIN - 8, y + 4, f"{100 * share:g} %", "end")
    for run, colour in zip(runs.values(), COLOURS, strict=False):
        seen = sorted(age for one in run["sequences"] for age in one["ages_ms"])
        points, before = [], 0.0
        for rank, age in enumerate(seen, 1):
            # A step where the value changes keeps the file small.
            if rank == len(seen) or seen[rank] != age:
                y = lambda share: bottom - share * (bottom - top)  # noqa: E731
                points += [(across(age), y(before)), (across(age), y(rank / len(seen)))]
                before = rank / len(seen)
        canvas.line([(MARGIN, bottom), *points, (WIDTH - 30, top)], colour, 2)
    canvas.legend(316, list(runs))
    return canvas.svg()


def accuracy(figures) -> str:
    """J of every sequence, streaming over offline."""
    rows = figures.streaming["sequences"]
    canvas = Canvas(80 + 26 * len(rows) + 20, "J by sequence, in percent")
    top, bottom = 36.0, 36.0 + 26 * len(rows)
    across = axis(canvas, 100.0, top, bottom, "")
    for index, one in enumerate(rows):
        y = top + 26 * index
        canvas.text(MARGIN - 8, y + 17, one["name"], "end")
        canvas.rect(MARGIN, y + 4, across(one["j"]) - MARGIN, 9, COLOURS[0])
        if one["offline"]:
            canvas.rect(MARGIN, y + 14, across(one["offline"]["j"]) - MARGIN, 7, COLOURS[1])
    canvas.legend(bottom + 44, ["streaming", "offline"])
    return canvas.svg()


def stages(figures) -> str:
    """Medians of the stages, end to end."""
    names = ["queue", "preprocess", "image_encoder", "memory_attention", "decoder", "memory_encoder", "postprocess", "rest"]
    runs = figures.latency
    most = max(sum(run["stages_ms"][name]["p50"] for name in names) for run in runs if run["stages_ms"]) * 1.05
    canvas = Canvas(104 + 30 * len(runs), "From a frame to its masks: medians of the stages")
    top, bottom = 36.0, 36.0 + 30 * len(runs)
    across = axis(canvas, most, top, bottom, "ms")
    for index, run in enumerate(runs):
        y, at = top + 30 * index, 0.0
        canvas.text(MARGIN - 8, y + 20, f"{run['feeds']} feed(s), {run['objects']} obj.", "end")
        for name, colour in zip(names, COLOURS, strict=True):
            took = run["stages_ms"].get(name, {"p50": 0.0})["p50"]
            canvas.rect(across(at), y + 6, across(at + took) - across(at), 18, colour)
            at += took
    canvas.legend(bottom + 46, [name.replace("_", " ") for name in names[:4]])
    for index, name in enumerate(names[4:]):
        x = MARGIN + 140 * index
        canvas.rect(x, bottom + 53, 10, 10, COLOURS[4 + index])
        canvas.text(x + 14, bottom + 62, name.replace("_", " "))
    return canvas.svg()


def all_of(figures) -> dict[str, str]:
    """Names to pictures."""
    made = {}
    if figures.streaming:
        made |= {"age.svg": ages(figures), "accuracy.svg": accuracy(figures)}
    if figures.latency:
        made["stages.svg"] = stages(figures)
    return made
