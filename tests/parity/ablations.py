"""Gets each rule of the loop wrong on purpose and shows which golden scenarios notice.

`python tests/parity/ablations.py` prints a table of max abs differences;
exit 1 if a mistake stays within the tolerance everywhere, so that no golden is vacuous.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import loop
from loop import Tracker

TOLERANCE = 1e-3
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sam2-tiny"


class RowsReversed(Tracker):
    """temporal rows in the opposite order"""

    def tpos(self, back):
        return self.memory["recent"] - back if back else self.memory["recent"]


class RowsShifted(Tracker):
    """temporal row k instead of k-1"""

    def tpos(self, back):
        return back


class CondRowZero(Tracker):
    """conditioning slots on row 0"""

    def tpos(self, back):
        return back - 1 if back else 0


class MemoryF32(Tracker):
    """memory kept in f32"""

    def keep(self, mem):
        return mem


class MemoryTruncated(Tracker):
    """bf16 by truncation, not to nearest"""

    def keep(self, mem):
        return (np.ascontiguousarray(mem).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


class PointersBf16(Tracker):
    """pointers rounded to bf16 too"""

    def keep_pointer(self, pointer):
        return loop.bf16(pointer)


class BinarizeTracked(Tracker):
    """binarized masks on tracked frames"""

    def binarize(self, prompted):
        return 1.0


class NoBinarize(Tracker):
    """no binarized mask on prompted frames"""

    def binarize(self, prompted):
        return 0.0


class CondAgeZero(Tracker):
    """conditioning pointer age 0"""

    def cond_age(self, now, entry):
        return 0


class CondAgeFifteen(Tracker):
    """conditioning pointer age held at 15"""

    def cond_age(self, now, entry):
        return min(now - entry.frame, 15)


class CondAgeNegative(Tracker):
    """conditioning pointer age with the wrong sign"""

    def cond_age(self, now, entry):
        return entry.frame - now


class CondAgeOff(Tracker):
    """conditioning pointer age one too small"""

    def cond_age(self, now, entry):
        return now - entry.frame - 1


class PointersFewer(Tracker):
    """pointers of ages 1..14 only"""

    def pointer_ages(self):
        return range(1, self.pointers["recent"])


class PointersSix(Tracker):
    """pointers of the six recent frames only"""

    def pointer_ages(self):
        return range(1, self.memory["recent"] + 1)


class NoNoMemEmbed(Tracker):
    """no_mem_embed left out"""

    def unconditioned(self, feats, mask):
        return super().unconditioned(feats, mask=True)


class MaskNoMemEmbed(Tracker):
    """no_mem_embed added for a mask prompt"""

    def unconditioned(self, feats, mask):
        return super().unconditioned(feats, mask=False)


class NoPad(Tracker):
    """no padding point"""

    def pad(self, points, labels):
        return points, labels


class TwoPads(Tracker):
    """two padding points"""

    def pad(self, points, labels):
        return super().pad(*super().pad(points, labels))


class HalfPixel(Tracker):
    """+0.5 added by the host too"""

    def pad(self, points, labels):
        return super().pad(points + 0.5, labels)


class NeverMultimask(Tracker):
    """multimask off for a click"""

    def multimask(self, count):
        return 0


class AlwaysMultimask(Tracker):
    """multimask on for a box"""

    def multimask(self, count):
        return 1


class NoClamp(Tracker):
    """previous logits not clamped"""

    def clamp(self, logits):
        return logits


class ClampTen(Tracker):
    """previous logits clamped to +-10"""

    def clamp(self, logits):
        return np.clip(logits, -10, 10)


class NoPreviousMask(Tracker):
    """correction without the previous logits"""

    def decode(self, feats, pix_feat, points, labels, mask_input, multimask):
        if pix_feat is self.conditioned:
            mask_input = None
        return super().decode(feats, pix_feat, points, labels, mask_input, multimask)


class CorrectUnconditioned(Tracker):
    """correction without memory"""

    def correction_feat(self, feats):
        return self.unconditioned(feats, mask=False)


class CorrectAsCond(Tracker):
    """correction stored as a conditioning frame"""

    def correct(self, frame, feats, points, labels):
        made = super().correct(frame, feats, points, labels)
        self.add_cond(self.tracked.pop(frame))
        return made


class CorrectNotStored(Tracker):
    """correction shown but not remembered"""

    def correct(self, frame, feats, points, labels):
        before = self.tracked[frame]
        made = super().correct(frame, feats, points, labels)
        self.tracked[frame] = before
        return made


class ConditionedMemory(Tracker):
    """memory encoder fed the memory-conditioned features"""

    def memory_feats(self, feats, pix_feat):
        return {**feats, self.model.toml["features"]["top"]: pix_feat}


class AbsentForgotten(Tracker):
    """frames with score <= 0 kept out of memory"""

    def written(self, score, prompted):
        return prompted or score > 0


class FiveRecent(Tracker):
    """only five recent memories"""

    def recent_frame(self, now, back):
        return super().recent_frame(now, back) if back <= 5 else -1


class FirstCondOnly(Tracker):
    """the second conditioning frame replaces the first"""

    def add_cond(self, entry):
        self.cond = [entry]


class CondAlsoRecent(Tracker):
    """a conditioning frame counted as recent too"""

    def add_cond(self, entry):
        super().add_cond(entry)
        self.add_tracked(entry)


class MaskScoreDecoded(Tracker):
    """a mask prompt's score taken from the decoder"""

    def mask_score(self, mask, made):
        return float(made["object_score"][0, 0])


class MaskNearest(Tracker):
    """a mask prompt's low-res logits without antialiasing"""

    def low_res(self, mask):
        step = mask.shape[0] // self.model.mask_shape[0]
        return mask[step // 2::step, step // 2::step] * np.float32(20) - np.float32(10)


MISTAKES = [kind for kind in globals().values()
            if isinstance(kind, type) and issubclass(kind, Tracker) and kind is not Tracker]


def difference(got: dict, want: dict) -> float:
    """Max abs difference over all logits and scores; inf if an array is missing."""
    return max(float(np.abs(got[k] - want[k]).max()) if k in got else np.inf for k in want)


def table(folder: Path) -> list[tuple[str, dict[str, float]]]:
    """One row a mistake (the honest loop first), one column a scenario."""
    model, frames = loop.Model(folder / "model"), loop.read_frames(folder / "frames")
    names = sorted(path.stem for path in (folder / "logits").glob("*.npz"))
    rows = []
    for kind in [Tracker, *MISTAKES]:
        row = {}
        for name in names:
            prompts = json.loads((folder / "prompts" / f"{name}.json").read_text())
            got = loop.trace(model, frames, prompts, folder / "prompts", kind)
            row[name] = difference(got, np.load(folder / "logits" / f"{name}.npz"))
        rows.append(("(no mistake)" if kind is Tracker else kind.__doc__, row))
    return rows


def show(rows: list[tuple[str, dict[str, float]]]) -> list[str]:
    """Prints the table; returns the mistakes nothing caught."""
    names = list(rows[0][1])
    print(f"{'max abs difference of logits and scores':52}" + "".join(f"{name:>13}" for name in names))
    missed = []
    for title, row in rows:
        caught = max(row.values()) > TOLERANCE
        if title != rows[0][0] and not caught:
            missed.append(title)
        cells = "".join(f"{row[name]:12.1e}{'*' if row[name] > TOLERANCE else ' '}" for name in names)
        print(f"{title:52}{cells}")
    print(f"* above the golden tolerance {TOLERANCE:g}")
    return missed


def main() -> int:
    """Exit 1 if the honest loop fails or a mistake passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, default=GOLDEN)
    rows = table(parser.parse_args().golden)
    missed = show(rows)
    honest = max(rows[0][1].values())
    for title in missed:
        print(f"not caught: {title}")
    if honest > TOLERANCE:
        print(f"the loop itself differs: {honest:.1e}")
    return 1 if missed or honest > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
