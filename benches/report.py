"""From raw JSON to words and tables: the README's section and a folder's summary. Same input, same bytes."""

import json
import statistics
from pathlib import Path

# A machine that was busy makes times mean little.
BUSY_NOTE = "**The machine was busy with others while this was measured: ratios mean something, times little.**"
NEVER = (
    "GPUs; machines of more cores; power; the quality of the SAM 2 family and EdgeTAM (their weights are drawn here); "
    "cameras, networks, decoders and displays (frame-to-mask begins where a picture enters the element); hours on end"
)


class Figures:
    """What a folder holds; a part that was not measured is `None` or empty."""

    def __init__(self, streaming, latency, degrade, compare, machine, commit, commands):
        self.streaming, self.latency, self.degrade, self.compare = streaming, latency, degrade, compare
        self.machine, self.commit, self.commands = machine, commit, commands

    @classmethod
    def read(cls, folder: Path) -> "Figures":
        """Raw files of a folder."""
        def one(name):
            path = folder / name
            return json.loads(path.read_text()) if path.is_file() else None

        def text(name):
            path = folder / name
            return path.read_text() if path.is_file() else ""

        latency = [one(path.name) for path in sorted(folder.glob("latency-*.json"))]
        degrade = {path.stem.removeprefix("degrade-"): one(path.name) for path in sorted(folder.glob("degrade-*.json"))}
        machine = dict((line[:17].strip(), line[17:].strip()) for line in text("machine.txt").splitlines())
        return cls(one("streaming.json"), latency, degrade, one("compare.json"), machine, text("commit.txt").strip(),
                   text("command.txt").strip())


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows), ""]


def percentiles(of: dict | None, digits: int = 1) -> str:
    """`p50 / p95 / p99`."""
    return " / ".join(f"{of[name]:.{digits}f}" for name in ("p50", "p95", "p99")) if of else "–"


def percent(share: float) -> str:
    """Of a share."""
    return f"{100 * share:.1f} %"


def looked_at(run: dict) -> int:
    """Frames with masks or without their object."""
    outcomes = run["frames"]["outcomes"]
    return outcomes.get("masks", 0) + outcomes.get("no-object", 0)


def accuracy(figures: Figures) -> list[str]:
    """Streaming beside offline."""
    run = figures.streaming
    mean = run["mean"]
    cells = lambda of, digits: [f"{of[name]:.{digits}f}" for name in ("j", "f", "jf")]  # noqa: E731
    rows = [["streaming: the newest masks at every instant, against that instant", *cells(mean["streaming"], 1)]]
    if mean["offline"]:
        rows += [["offline: every frame looked at, its own masks", *cells(mean["offline"], 1)],
                 ["ratio", *cells(mean["ratio"], 3)]]
    accounted = "each with one outcome" if run["frames"]["accounted"] else "**not all accounted for**"
    set_ = "".join(f", `{name}={value}`" for name, value in run["set"].items())
    return [
        f"**How right the picture is now.** {len(run['sequences'])} DAVIS sequences at {run['fps']:g} fps, `{run['model']}`, "
        f"{run['threads']} threads, prompted with the first {run['prompt']}{set_}:", "",
        *table(["", "J", "F", "J&F"], rows),
        f"Mask age as shown, p50 / p95 / p99: {percentiles(run['age_ms'], 0)} ms; a step {percentiles(run['step_ms'])} ms. "
        f"{run['frames']['in']} frames in, {looked_at(run)} looked at, {accounted}.", "",
    ]


def latency(figures: Figures) -> list[str]:
    """Frame-to-mask over feeds and objects."""
    rows = []
    for run in figures.latency:
        whole = run["frame_to_mask_ms"]
        rows.append([
            f"{run['feeds']} x {run['fps']:.3g} fps, {run['objects']}", percentiles(whole),
            f"{whole['p999']:.1f}" if whole and "p999" in whole else "–",
            f"{run['jitter_ms']:.1f}" if run["jitter_ms"] is not None else "–",
            f"{run['mask_age_ms']['p99']:.0f}" if run["mask_age_ms"] else "–",
            f"{run['processed']} of {run['frames_in']}", f"{run['fairness']:.2f}" if run["feeds"] > 1 else "–",
            percent(run["overhead"]["p50"]) if run["overhead"] else "–",
            f"{run['cpu']:.2f}" if run["cpu"] is not None else "–", f"{run['peak_memory_mib'] - run['clip_mib']:.0f}",
        ])
    first = figures.latency[0]
    return [
        f"**From a frame to its masks**, `{first['model']}`, {first['threads']} threads, {first['picture']}, "
        f"{first['seconds']:g} s after {first['warmup_s']:g} s of warm-up, in ms:", "",
        *table(["feeds, objects in each", "p50 / p95 / p99", "p99.9", "jitter", "age shown p99", "frames looked at",
                "least / most over feeds", "overhead", "cores used", "MiB"], rows),
        "Overhead: the share of the median frame's time that the engines did not use. Jitter: p99 less p50. p99.9: of 1000 "
        "frames and more. MiB: the process at its peak, without the clip it plays from.", "",
    ]


def degrade(figures: Figures) -> list[str]:
    """What every step down costs."""
    base = figures.streaming["mean"]["offline"] if figures.streaming else None
    rows = []
    for name, run in figures.degrade.items():
        mean, steps = run["mean"]["streaming"], run["step_ms"]
        ratio = f"{mean['j'] / base['j']:.3f}" if base else "–"
        rows.append([name, f"{mean['j']:.1f}", f"{mean['jf']:.1f}", ratio, percentiles(run["age_ms"], 0),
                     percentiles(steps), f"{looked_at(run)} of {run['frames']['in']}"])
    return ["**What giving way costs**, level by level, on the same sequences:", "",
            *table(["level", "streaming J", "J&F", "J over offline J", "age ms p50 / p95 / p99", "step ms p50 / p95 / p99",
                    "frames looked at"], rows)]


def compare(figures: Figures) -> list[str]:
    """Beside PyTorch."""
    run, rows = figures.compare, []
    names = list(dict.fromkeys((row["model"], row["image_size"]) for row in run["rounds"]))
    for name, size in names:
        rounds = [row for row in run["rounds"] if (row["model"], row["image_size"]) == (name, size)]
        ratios = [row["ratio"] for row in rounds]
        middle = lambda key: statistics.median(row[key] for row in rounds)  # noqa: E731
        lives = [row["live"] for row in rounds if row["live"]]
        live = f"{statistics.median(one['processed_per_second'] for one in lives):.1f}" if lives else "–"
        # A model slower than the camera always keeps a frame waiting; that is its own time.
        own = [one["overhead"]["of_sum"] - one["overhead"]["queue"] for one in lives if one["overhead"]]
        overhead = percent(statistics.median(own)) if own else "–"
        label = f"{name if name == 'edgetam' else 'sam2.1-' + name} at {size}"
        rows.append([label, f"{middle('ours_ms'):.0f}", f"{middle('pytorch_ms'):.0f}",
                     f"{min(ratios):.2f} / **{statistics.median(ratios):.2f}** / {max(ratios):.2f}", live, overhead])
    packages = run["packages"]
    return [
        f"**Beside the published PyTorch predictors**, eager, torch {packages['torch']}, the same drawn weights and clip, "
        f"{run['threads']} threads, {run['objects']} object, in turns:", "",
        *table(["model", "ours, ms a frame", "PyTorch, ms a frame", "times faster: least / middle / most",
                "live, frames a second", "overhead live, waiting aside"], rows),
        "Ours is the whole way from a buffer to masks at the picture's size; theirs begins with tensors in memory.", "",
    ]


def parts(figures: Figures) -> list[str]:
    """All that was measured, and what was not."""
    lines, missing = [], []
    for measured, write, name in [
        (figures.streaming, accuracy, "streaming accuracy"),
        (figures.latency, latency, "latency"),
        (figures.degrade, degrade, "what the steps of the degrade ladder cost"),
        (figures.compare, compare, "the ratio to PyTorch"),
    ]:
        if measured:
            lines += write(figures)
        else:
            missing.append(name)
    return [*lines, f"Not measured: {'; '.join([*missing, NEVER])}."]


def machine(figures: Figures) -> str:
    """In a line."""
    of = figures.machine
    return f"{of.get('cores', '?')} cores of {of.get('cpu', 'an unknown processor')}, {of.get('date', 'no date')}"


def section(figures: Figures, folder: str) -> str:
    """Between the README's marks, marks included."""
    note = [BUSY_NOTE, ""] if "note" in figures.machine else []
    lines = [f"<!-- performance {folder} -->",
             f"{machine(figures)}, CPU only, `make figures`; [raw figures, commands and plots]({folder}/summary.md).", "",
             *note, *parts(figures), "<!-- /performance -->"]
    return "\n".join(lines)


def sequences(run: dict) -> list[str]:
    """Sequence by sequence."""
    rows = []
    for one in run["sequences"]:
        offline = one["offline"]
        rows.append([one["name"], str(one["instants"]), f"{one['j']:.1f}", f"{one['f']:.1f}",
                     f"{offline['j']:.1f}" if offline else "–",
                     f"{one['j'] / offline['j']:.3f}" if offline and offline["j"] else "–",
                     f"{looked_at(one)} of {one['frames']['in']}",
                     f"{one['age_ms']['p99']:.0f}" if one["age_ms"] else "–"])
    return table(["sequence", "frames", "streaming J", "F", "offline J", "ratio", "looked at", "age p99, ms"], rows)


def stages(run: dict) -> list[str]:
    """Stage by stage."""
    rows = [[name.replace("_", " "), *(f"{of[key]:.2f}" for key in ("p50", "p95", "p99", "max"))]
            for name, of in run["stages_ms"].items()]
    shares = run["overhead"] or {}
    said = ", ".join(f"{name} {percent(shares[name])}" for name in ("queue", "preprocess", "postprocess", "rest") if shares)
    return [f"### {run['feeds']} feed(s) of {run['objects']} object(s) at {run['fps']:.3g} fps", "",
            *table(["ms", "p50", "p95", "p99", "most"], rows),
            f"Overhead over all frames {percent(shares.get('of_sum', 0))}: {said}. Streaming thread, p50 / p95 / p99: "
            f"{percentiles(run['streaming_ms'], 2)} ms. Outcomes: "
            + ", ".join(f"{name} {count}" for name, count in run["outcomes"].items()) + ".", ""]


def summary(figures: Figures) -> str:
    """summary.md."""
    lines = ["# Live, measured", "", f"{machine(figures)}.", ""]
    lines += [BUSY_NOTE, ""] if "note" in figures.machine else []
    lines += [*parts(figures), ""]
    if figures.streaming:
        lines += ["## Streaming, sequence by sequence", "", "![J](accuracy.svg)", "", "![ages](age.svg)", "",
                  *sequences(figures.streaming)]
    if figures.latency:
        lines += ["## Latency, stage by stage", "", "![stages](stages.svg)", ""]
        for run in figures.latency:
            lines += stages(run)
    return "\n".join(lines).rstrip() + "\n"
