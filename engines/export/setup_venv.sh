#!/usr/bin/env bash
# Creates (or completes) a virtual environment that can export models: setup_venv.sh DIR
# Needs Python 3.11 or newer; quick when DIR is already up to date.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: setup_venv.sh DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
# All .py files of the `sam2` package, identical to facebookresearch/sam2 at 2b90b9f.
sam2_digest=f9b7b63281ca249fb79fe4e50bc89d7d8759f1e01b56f0d5a551965135e6fb1a

stamp="$(cat "$here/requirements.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1) $here"
if [ -f "$1/.sightline" ] && [ "$(cat "$1/.sightline")" = "$stamp" ]; then
  exit 0
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup_venv.sh: expected Python 3.11 or newer, got $("$python" --version) (set PYTHON)" >&2
  exit 1
}
[ -x "$1/bin/python" ] || "$python" -m venv "$1"
SAM2_BUILD_CUDA=0 "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
  -r "$here/requirements.txt"

site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
got=$(cd "$site/sam2" && find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
if [ "$got" != "$sam2_digest" ]; then
  echo "setup_venv.sh: sam2: expected digest $sam2_digest, got $got" >&2
  exit 1
fi
echo "$here" > "$site/sightline_export.pth"
echo "$stamp" > "$1/.sightline"
