"""What a soak showed: the lines that must hold, the raw numbers, a summary."""
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass

# The source's counter is brought up to date once a second, the outcomes at once: at rest they may differ by the frames of
# a second (30), and by those on their way.
IN_FLIGHT = 45
# Memory is judged behind a quarter of the time, and not before all faults have happened once: behind the first round.
WARM_SHARE = 0.25
# Samples of less than this tell no slope: then only so much may be added in all.
MEMORY_JUDGED_S = 600
MEMORY_SHORT_MIB = 32.0
# What allocations at random places do to the number of pages in use: a slope that adds less over all that is judged is none.
MEMORY_NOISE_MIB = 1.0
# How far the medians of the middle third and of the last may lie apart, as a share: a step, which a slope hides in its error.
MEMORY_PLATEAU = 0.02
HANDLES_NOISE = 2
STOP_S = 4.0
BATCHES = 12


@dataclass
class Result:
    rows: list
    events: list
    last: dict
    alive: bool
    # When the cameras were switched off, in seconds.
    ended: float
    stopped: tuple
    world: object


def slope(times, values):
    """Least squares over the medians of batches, which are nearly independent where samples are not, and know no spikes: the
    slope per unit of time, and its standard error (infinite below four batches)."""
    size = max(1, math.ceil(len(times) / BATCHES))
    medians = lambda numbers: [statistics.median(numbers[at : at + size]) for at in range(0, len(numbers), size)]
    x, y = medians(times), medians(values)
    if len(x) < 4:
        return 0.0, math.inf
    middle_x, middle_y = statistics.fmean(x), statistics.fmean(y)
    square = sum((at - middle_x) ** 2 for at in x)
    found = sum((at - middle_x) * (value - middle_y) for at, value in zip(x, y)) / square
    rest = sum((value - middle_y - found * (at - middle_x)) ** 2 for at, value in zip(x, y))
    return found, math.sqrt(rest / (len(x) - 2) / square)


def machine():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    load = " ".join(f"{part:.1f}" for part in os.getloadavg())
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores in use, load {load}, {platform.system()} {platform.release()}\n"


def checks(result):
    """`(holds, line)` of everything that must be so."""
    world, last = result.world, result.last
    seconds, code = result.stopped
    yield result.alive, f"the process lived through {len(result.events)} faults"
    yield code == 0 and seconds <= STOP_S, f"SIGTERM: it stopped after {seconds:.1f} s (at most {STOP_S:.0f}) with exit code {code}"
    rows = [row for row in result.rows if row["scraped"]]
    for feed in world.feeds:
        went_in, accounted = last[f"{feed}_in"], last[f"{feed}_accounted"]
        if feed.startswith("cam-"):
            text = f"{feed}: {went_in:.0f} frames in, {accounted:.0f} accounted for, its camera being off"
            yield went_in == accounted > 0, text
        else:
            apart = [abs(row[f"{feed}_in"] - row[f"{feed}_accounted"]) for row in [*rows, last] if row["quiet"]]
            text = f"{feed}: {went_in:.0f} frames in; between rounds at most {max(apart):.0f} apart from those accounted for"
            yield went_in > 0 and max(apart) <= IN_FLIGHT, f"{text} (at most {IN_FLIGHT})"
        yield last[f"{feed}_restarts"] == 0, f"{feed}: its corridor was built anew {last[f'{feed}_restarts']:.0f} times"
    steady = world.steady
    yield not steady.wrong and steady.frames > 0, f"ball: of {steady.frames} frames in its lines each was there once" + (
        f"; {len(steady.wrong)} were not: {'; '.join(steady.wrong[:3])}" if steady.wrong else ""
    )
    slow = world.slow
    yield not slow.wrong, f"the slow reader's {slow.lines} lines were whole" + (f"; not: {'; '.join(slow.wrong[:3])}" if slow.wrong else "")
    for event in result.events:
        if event["recovered_s"] is None or event["others_stood_still"]:
            still = f", and {event['others_stood_still']} stood still" if event["others_stood_still"] else ""
            yield False, f"{event['fault']} at {event['t_s']} s: back after {event['recovered_s']} s{still}"
    if not any(event["recovered_s"] is None or event["others_stood_still"] for event in result.events):
        yield bool(result.events), "after every fault everything worked again, and no other feed stood still meanwhile"
    yield from resources(result, rows)


def warm(result, rows):
    """From the second round on, and not before a quarter of the time: rings are filled at their first use."""
    second = [event["t_s"] for event in result.events if event["round"] == 1]
    start = max(rows[-1]["t_s"] * WARM_SHARE if rows else 0.0, second[0] if second else 0.0)
    return [row for row in rows if row["t_s"] >= start and row["t_s"] <= result.ended]


def memory(kept):
    """Slope 0 within noise, and a plateau."""
    times, used = [row["t_s"] for row in kept], [row["rss_kib"] / 1024 for row in kept]
    found, error = slope([at / 3600 for at in times], used)
    over = times[-1] - times[0]
    grown = found * over / 3600
    text = f"memory: {found:+.1f} MiB an hour, standard error {error:.1f}, {grown:+.1f} MiB over {over / 60:.0f} min behind the warm-up"
    if over < MEMORY_JUDGED_S:
        yield grown <= MEMORY_SHORT_MIB, f"{text} (at most {MEMORY_SHORT_MIB:.0f}; a slope is told in {MEMORY_JUDGED_S / 60:.0f} min)"
        return
    yield found <= 2 * error or grown <= MEMORY_NOISE_MIB, f"{text} (at most two standard errors, or {MEMORY_NOISE_MIB:.0f} MiB in all)"
    third = len(used) // 3
    middle, last = statistics.median(used[third : 2 * third]), statistics.median(used[2 * third :])
    text = f"memory: {middle:.0f} MiB in the middle third of that, {last:.0f} in the last, {max(used):.0f} at most"
    yield last <= middle * (1 + MEMORY_PLATEAU), f"{text} (at most {100 * MEMORY_PLATEAU:.0f} % more)"


def resources(result, rows):
    kept = warm(result, rows)
    if len(kept) < 4:
        yield False, f"memory, threads, file descriptors: {len(kept)} samples after warming up are too few"
        return
    yield from memory(kept)
    quiet = [row for row in rows if row["quiet"] and row["t_s"] <= result.ended]
    for name, word in (("threads", "threads"), ("fds", "file descriptors")):
        if not quiet:
            yield False, f"{word}: no round was finished, so there is nothing to compare"
            continue
        first, last, most = quiet[0][name], quiet[-1][name], max(row[name] for row in kept)
        yield last <= first + HANDLES_NOISE, f"{word}: {first} after the first round, {last} after the last, {most} at most"


def recoveries(events):
    kinds = {}
    for event in events:
        kinds.setdefault(event["fault"], []).append(event)
    for name, found in sorted(kinds.items()):
        times = [event["recovered_s"] for event in found if event["recovered_s"] is not None]
        row = [f"{statistics.median(times):.2f}", f"{max(times):.2f}"] if times else ["never", "never"]
        yield f"| {name} | {len(found)} | {found[0]['seconds']:g} | {row[0]} | {row[1]} | {len(found) - len(times)} |"


def write(args, result):
    """Writes the folder, prints the lines; true when all hold."""
    found = list(checks(result))
    holds = all(ok for ok, _ in found)
    out, last = args.out, result.last
    with open(out / "samples.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(result.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(result.rows)
    (out / "faults.json").write_text("".join(json.dumps(event) + "\n" for event in result.events))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    (out / "machine.txt").write_text(machine())
    (out / "commit.txt").write_text(commit)
    (out / "command.txt").write_text("python3 " + " ".join(sys.argv) + "\n")
    minutes = result.rows[-1]["t_s"] / 60
    frames = sum(last[f"{feed}_accounted"] for feed in result.world.feeds)
    lines = [f"# Soak: {minutes:.0f} minutes, {frames:.0f} frames, {len(result.events)} faults", ""]
    lines += [f"{'All lines hold.' if holds else 'NOT all lines hold.'} First camera: `{args.model}`, all others: fake engines.", ""]
    lines += [f"- {'holds' if ok else 'FAILS'}: {text}" for ok, text in found]
    lines += ["", "| fault | times | lasts, s | back after, s: median | longest | never |", "|---|---|---|---|---|---|"]
    lines += list(recoveries(result.events))
    lines += ["", "| feed | frames in | accounted for | of those skipped | turned away at the door | losses | lines | lines dropped |", "|---|---|---|---|---|---|---|---|"]
    keys = ("in", "accounted", "skipped", "door_drops", "losses", "lines", "lines_dropped")
    lines += [f"| {feed} | " + " | ".join(f"{last[f'{feed}_{key}']:.0f}" for key in keys) + " |" for feed in result.world.feeds]
    text = "\n".join(lines) + "\n"
    (out / "summary.md").write_text(text)
    print("\n" + text, flush=True)
    return holds
