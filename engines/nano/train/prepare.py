"""python -m train.prepare CLIPS POOL: decode a folder of videos once into POOL/clips/<name>.npy [F,288,512,3] u8 RGB."""
import glob
import os
import sys

import cv2
import numpy as np


def main():
    src, pool = sys.argv[1:3]
    os.makedirs(os.path.join(pool, "clips"), exist_ok=True)
    for path in sorted(glob.glob(os.path.join(src, "*.mp4"))):
        c = cv2.VideoCapture(path)
        total = int(c.get(cv2.CAP_PROP_FRAME_COUNT))
        step = max(1, round(total / 400))      # long clips of still cameras hold little that is new
        out, i = [], 0
        while True:
            ok, im = c.read()
            if not ok:
                break
            if i % step == 0:
                out.append(cv2.resize(im, (512, 288), interpolation=cv2.INTER_AREA)[:, :, ::-1])
            i += 1
        np.save(os.path.join(pool, "clips", os.path.basename(path)[:-4] + ".npy"), np.stack(out))
        print(path, len(out), flush=True)


if __name__ == "__main__":
    main()
