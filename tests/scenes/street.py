"""python street.py OUT.mp4 [DAVIS]: a drawn street, 640x360, 12 s at 25 fps. No pixel of it is anyone's but ours.

Four walkers and a cyclist cross a square under a fixed camera; the man in the red jacket passes behind a lamp post
and a kiosk's awning. For pictures in the documentation and for queries whose answer is known. Needs opencv-python and pillow.
Beside OUT.mp4 it writes OUT.json: per frame and walker the visible box in pixels. With a folder DAVIS it also writes
there the sequence "street" as DAVIS lays it out, the four walkers and the cyclist as the objects 1 to 5 (no shadows).
"""
import json
import pathlib
import sys

import cv2
import numpy as np
from PIL import Image

W, H, FPS, SECONDS, UP = 640, 360, 25, 12, 2


def ground():
    """The square: paving in perspective, a wall with windows, planters."""
    rng = np.random.default_rng(3)
    im = np.zeros((H * UP, W * UP, 3), np.float32)
    ys = np.linspace(0, 1, H * UP)[:, None, None]
    im[:] = np.array([150, 158, 166]) * (.75 + .35 * ys)
    hor = int(.36 * H * UP)
    for k in range(60):          # slabs
        y = int(hor + (H * UP - hor) * (k / 60) ** 1.7)
        cv2.line(im, (0, y), (W * UP, y), (118, 124, 130), 1 + k // 18)
    for k in range(-26, 27):
        cv2.line(im, (W * UP // 2 + k * 26, hor), (W * UP // 2 + k * 150, H * UP), (118, 124, 130), 2)
    im[:hor] = (96, 104, 128)
    for row in range(0, hor, 18):      # bricks
        cv2.line(im, (0, row), (W * UP, row), (84, 90, 112), 1)
        for x in range((row // 18 % 2) * 22, W * UP, 44):
            cv2.line(im, (x, row), (x, row + 18), (84, 90, 112), 1)
    for x in range(70, W * UP, 240):
        cv2.rectangle(im, (x, 34), (x + 120, hor - 60), (70, 60, 52), -1)
        cv2.rectangle(im, (x + 6, 40), (x + 114, hor - 66), (140, 128, 110), -1)
        cv2.line(im, (x + 60, 40), (x + 60, hor - 66), (70, 60, 52), 4)
    for x in (150, 900):
        cv2.rectangle(im, (x, hor - 26), (x + 150, hor + 30), (62, 66, 84), -1)
        for _ in range(160):
            p = (int(rng.normal(x + 75, 45)), int(rng.normal(hor - 40, 16)))
            cv2.circle(im, p, int(rng.integers(5, 12)), tuple(int(v) for v in rng.uniform(.7, 1.2) * np.array([52, 110, 60])), -1)
    im += rng.normal(size=im.shape[:2] + (1,)).astype(np.float32) * 5
    return im


def limb(im, a, b, colour, width):
    cv2.line(im, tuple(int(v) for v in a), tuple(int(v) for v in b), colour, int(width), cv2.LINE_AA)


def walker(im, x, y, tall, phase, way, jacket, trousers, hair, bag=None):
    """A person whose feet stand at (x, y); `phase` of the step in radians."""
    s = tall / 100
    hip, neck = np.array([x, y - 48 * s]), np.array([x + 3 * way * s, y - 82 * s])
    cv2.ellipse(im, (int(x), int(y)), (int(26 * s), int(6 * s)), 0, 0, 360, (92, 96, 100), -1, cv2.LINE_AA)
    for leg in (0, 1):
        a = np.sin(phase + np.pi * leg) * .5
        knee = hip + 25 * s * np.array([np.sin(a) * way, np.cos(a)])
        b = a - .45 * max(0, np.sin(phase + np.pi * leg + 1.2))
        foot = knee + 24 * s * np.array([np.sin(b) * way, np.cos(b)])
        dark = tuple(v * (.8 if leg else 1) for v in trousers)
        limb(im, hip, knee, dark, 12 * s)
        limb(im, knee, foot, dark, 10 * s)
        limb(im, foot, foot + (7 * s * way, 1), (30, 28, 26), 7 * s)
    far = np.sin(phase) * .55
    limb(im, neck + (0, 6 * s), neck + (0, 6 * s) + 30 * s * np.array([np.sin(far) * way, np.cos(far)]), tuple(v * .75 for v in jacket), 9 * s)
    body = np.array([neck + (-10 * s, 2 * s), neck + (10 * s, 2 * s), hip + (11 * s, 6 * s), hip + (-11 * s, 6 * s)])
    cv2.fillConvexPoly(im, body.astype(np.int32), jacket, cv2.LINE_AA)
    limb(im, neck + (0, 4 * s), neck + (0, 4 * s), jacket, 20 * s)
    limb(im, body[0] + (4 * s, 6 * s), body[3] + (4 * s, -4 * s), tuple(min(255, v * 1.15) for v in jacket), 3 * s)
    hand = neck + (0, 6 * s) + 31 * s * np.array([np.sin(-far) * way, np.cos(far)])
    limb(im, neck + (0, 6 * s), hand, tuple(v * .9 for v in jacket), 9 * s)
    if bag:
        cv2.rectangle(im, tuple(int(v) for v in hand - (9 * s, 0)), tuple(int(v) for v in hand + (9 * s, 17 * s)), bag, -1, cv2.LINE_AA)
    head = neck + (2 * way * s, -9 * s)
    cv2.circle(im, tuple(int(v) for v in head), int(8.5 * s), (150, 178, 214), -1, cv2.LINE_AA)
    cv2.ellipse(im, tuple(int(v) for v in head + (-1.5 * way * s, -2.5 * s)), (int(9 * s), int(7.5 * s)), 0, 150, 390, hair, -1, cv2.LINE_AA)


def cyclist(im, x, y, tall, phase, way, jacket):
    s = tall / 100
    cv2.ellipse(im, (int(x), int(y)), (int(50 * s), int(5 * s)), 0, 0, 360, (92, 96, 100), -1, cv2.LINE_AA)
    for d in (-30, 30):
        cv2.circle(im, (int(x + d * s), int(y - 20 * s)), int(20 * s), (34, 34, 34), max(2, int(3 * s)), cv2.LINE_AA)
    crank, seat, bar = np.array([x, y - 22 * s]), np.array([x - 12 * way * s, y - 50 * s]), np.array([x + 24 * way * s, y - 56 * s])
    for a, b in ((crank, seat), (seat, bar), (crank, bar), (np.array([x - 30 * way * s, y - 20 * s]), seat), (np.array([x + 30 * way * s, y - 20 * s]), bar)):
        limb(im, a, b, (40, 120, 190), 4 * s)
    pedal = crank + 9 * s * np.array([np.cos(phase), np.sin(phase)])
    knee = (seat + pedal) / 2 + np.array([14 * way * s, -6 * s])
    limb(im, seat, knee, (70, 62, 58), 11 * s)
    limb(im, knee, pedal, (70, 62, 58), 9 * s)
    neck = seat + np.array([20 * way * s, -34 * s])
    limb(im, seat + (0, -3), neck, jacket, 19 * s)
    limb(im, neck + (0, 5 * s), bar, jacket, 8 * s)
    cv2.circle(im, tuple(int(v) for v in neck + (5 * way * s, -11 * s)), int(8.5 * s), (150, 178, 214), -1, cv2.LINE_AA)
    cv2.ellipse(im, tuple(int(v) for v in neck + (4 * way * s, -14 * s)), (int(10 * s), int(7 * s)), 0, 180, 360, (60, 60, 200), -1, cv2.LINE_AA)


RED, BLUE, GREEN, GREY, YELLOW = (48, 44, 196), (170, 96, 40), (70, 130, 60), (120, 112, 108), (60, 190, 225)
#        name, y, height, start x, px/s, jacket, trousers, hair, bag
WALKERS = [("man in the red jacket", 300, 118, 60, 44, RED, (70, 58, 50), (30, 34, 44), None),
           ("woman in blue", 262, 98, 590, -36, BLUE, (52, 50, 54), (40, 70, 120), (40, 40, 150)),
           ("man in green", 232, 84, 300, 17, GREEN, (96, 92, 88), (40, 40, 40), None),
           ("man in grey", 330, 132, 520, -27, GREY, (60, 50, 44), (24, 24, 26), (60, 70, 90))]

NAMES = [walker[0] for walker in WALKERS] + ["cyclist"]


def silhouette(draw):
    """Where an actor is drawn, its shadow left out; at double size."""
    empty = np.full((H * UP, W * UP, 3), -999, np.float32)
    draw(empty)
    shadow = np.abs(empty - (92, 96, 100)).max(-1) < 3
    return (empty.min(-1) > -500) & ~shadow


def write_davis(folder, frame, im, labels):
    for kind, name, data in (("JPEGImages", f"{frame:05}.jpg", im), ("Annotations", f"{frame:05}.png", labels)):
        path = pathlib.Path(folder, kind, "480p", "street")
        path.mkdir(parents=True, exist_ok=True)
        if kind == "Annotations":
            picture = Image.fromarray(data)
            picture.putpalette([v for i in range(6) for v in (40 * i, 255 - 40 * i, 90)])
            picture.save(path / name)
        else:
            cv2.imwrite(str(path / name), data, (cv2.IMWRITE_JPEG_QUALITY, 95))


def main():
    out, base, truth = sys.argv[1], ground(), []
    video = cv2.VideoWriter(out, cv2.VideoWriter_fourcc(*"mp4v"), FPS, (W, H))
    rng = np.random.default_rng(9)
    for f in range(FPS * SECONDS):
        t, im, boxes = f / FPS, base.copy(), {}
        actors = [(y, name, lambda im, a=a: walker(im, (a[3] + a[4] * t) * UP, a[1] * UP, a[2] * UP, 5.2 * t + i, np.sign(a[4]), *a[5:])) for i, a in enumerate(WALKERS) for name, y in [a[:2]]]
        actors.append((250, "cyclist", lambda im: cyclist(im, (-140 + 105 * t) * UP, 250 * UP, 96 * UP, 7 * t, 1, YELLOW)))
        actors.append((312, None, lambda im: (limb(im, (236 * UP, 316 * UP), (236 * UP, 60 * UP), (58, 62, 66), 7 * UP), cv2.ellipse(im, (236 * UP, 58 * UP), (18 * UP, 9 * UP), 0, 180, 360, (58, 62, 66), -1, cv2.LINE_AA))))
        labels = np.zeros((H * UP, W * UP), np.uint8)
        for _, name, draw in sorted(actors, key=lambda a: a[0]):
            before = im.copy()
            draw(im)
            if len(sys.argv) > 2:
                labels[silhouette(draw)] = NAMES.index(name) + 1 if name else 0
            ys, xs = np.nonzero(np.abs(im - before).max(-1) > 24)
            if name and len(xs) and xs.max() > 0 and xs.min() < W * UP - 1:
                boxes[name] = [int(v) // UP for v in (xs.min(), ys.min(), xs.max() + UP, ys.max() + UP)]
        im = cv2.GaussianBlur(im, (3, 3), 0)
        im = cv2.resize(im, (W, H), interpolation=cv2.INTER_AREA) + rng.normal(size=(H, W, 3)) * 2.2
        im = np.clip(im, 0, 255).astype(np.uint8)
        video.write(im)
        if len(sys.argv) > 2:
            write_davis(sys.argv[2], f, im, labels[::UP, ::UP])
        truth.append(boxes)
    video.release()
    json.dump(truth, open(out.rsplit(".", 1)[0] + ".json", "w"))


if __name__ == "__main__":
    main()
