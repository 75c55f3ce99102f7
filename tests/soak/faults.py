"""What may go wrong around the process: how it is broken, how it is healed, and when it works again."""
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Callable

from world import total


@dataclass
class Fault:
    name: str
    # Breaks it, and gives what heals it.
    breaks: Callable
    # Looks at what there is when it was healed, and gives what is true once it works again.
    works: Callable
    seconds: float = 3.0
    # The feeds it may touch; all others must go on meanwhile.
    feeds: list = field(default_factory=list)
    others_go_on: bool = True


def scraped(world):
    """The metrics, asked for until there are any: nothing is not zero."""
    while not (found := world.serve.metrics()) and world.serve.alive():
        time.sleep(0.1)
    return found


def grows(name, **labels):
    """True once a counter has grown by five since it was healed, or began anew."""

    def works(world):
        start = total(scraped(world), name, **labels)
        return lambda: total(scraped(world), name, **labels) >= start + 5

    return works


def frames(feed):
    return grows("sightline_frames_total", feed=feed)


def all_frames(world):
    each = [frames(feed)(world) for feed in world.feeds]
    return lambda: all(works() for works in each)


def answered(world):
    start = total(scraped(world), "sightline_queries_total", feed="asks", state="answered")
    return lambda: total(scraped(world), "sightline_queries_total", feed="asks", state="answered") > start


def camera(name, feed):
    """The faults of one camera. `seconds` are more than the second of silence after which it counts as lost."""

    def killed(world):
        getattr(world, name).kill()
        return getattr(world, name).start

    def frozen(world):
        getattr(world, name).freeze()
        return getattr(world, name).thaw

    def replaced(**by):
        def breaks(world):
            found = getattr(world, name)
            found.kill()
            found.start(**by)

            def undo():
                found.kill()
                found.start()

            return undo

        return breaks

    def fault(kind, breaks):
        return Fault(f"{feed}-{kind}", breaks, frames(feed), 3.0, [feed])

    return [
        fault("killed", killed),
        fault("frozen", frozen),
        fault("other-size", replaced(size=(480, 270))),
        fault("flood", replaced(fps=120)),
    ]


def answers(kind):
    def breaks(world):
        world.answers.restart(kind)
        return world.answers.restart

    return breaks


def answers_dead(world):
    world.answers.kill()
    return world.answers.start


def signals(number):
    def breaks(world):
        world.serve.signal(number)
        return lambda: None

    return breaks


def stopped(world):
    world.serve.signal(signal.SIGSTOP)
    return lambda: world.serve.signal(signal.SIGCONT)


def reader(pace):
    def breaks(world):
        world.slow.pace = pace

        def undo():
            world.slow.pace = "fast"

        return undo

    return breaks


def disk_full(world):
    ballast = world.disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

    def undo():
        # As `logrotate` with copytruncate does.
        (world.disk / "disk.jsonl").open("wb").close()
        ballast.unlink()

    return undo


def scrapers(world):
    """Clients that ask and never read, or never even ask."""
    host, port = world.listen.split(":")
    open_ones = [socket.create_connection((host, int(port))) for _ in range(40)]
    for client in open_ones[::2]:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    def undo():
        for client in open_ones:
            client.close()

    return undo


ALL = [
    *camera("tcp", "cam-tcp"),
    *camera("udp", "cam-udp"),
    Fault("llm-hangs", answers("hang"), answered, 5.0),
    Fault("llm-dead", answers_dead, answered, 4.0),
    Fault("llm-garbage", answers("garbage"), answered, 4.0),
    Fault("llm-500", answers("status-500"), answered, 4.0),
    Fault("disk-full", disk_full, grows("sightline_output_lines_total", feed="disk"), 12.0),
    Fault("reader-slow", reader("slow"), grows("sightline_output_lines_total", feed="pipe"), 14.0),
    Fault("reader-away", reader("away"), grows("sightline_output_lines_total", feed="pipe"), 14.0),
    Fault("scrapers-that-hang", scrapers, all_frames, 3.0),
    Fault("SIGHUP", signals(signal.SIGHUP), all_frames, 0.5),
    Fault("SIGUSR1", signals(signal.SIGUSR1), all_frames, 0.5),
    Fault("SIGSTOP", stopped, all_frames, 3.0, others_go_on=False),
]
