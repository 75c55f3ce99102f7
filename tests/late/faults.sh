#!/bin/bash
# Streams side by side with a server that hangs, one that is dead, one that answers garbage, and none at all; what each costs.
#   tests/late/faults.sh FOLDER [SECONDS]     (600 by default; needs the release binary and the scripted server)
set -eu
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
OUT=$1 SECONDS_EACH=${2:-600} SIGHTLINE=${SIGHTLINE:-$ROOT/target/release/sightline}
SERVER=${SERVER:-$ROOT/target/release/examples/scripted-server}
mkdir -p "$OUT"
cat > "$OUT/faults.toml" <<'TOML'
[query]
watch_every_s = 1.0
watch_at_least_s = 0.5
[llm]
retries = 1
first_token_timeout_s = 2.0
total_timeout_s = 5.0
breaker_pause_s = 3.0
TOML
echo '{"*": "garbage"}' > "$OUT/answers.json"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
for fault in hang garbage; do
  "$SERVER" --answers "$OUT/answers.json" --fault $fault --fault-every 1 --address 127.0.0.1:0 > "$OUT/$fault.url" 2>/dev/null &
done
sleep 1
watched() { # name, then what is added to the command
  local name=$1; shift
  "$SIGHTLINE" run --input test --mode live --box 250,130,330,210 --max-seconds "$SECONDS_EACH" \
    --jsonl "$OUT/$name.jsonl" "$@" > "$OUT/$name.txt" 2> "$OUT/$name.err" &
  local process=$!
  # Seconds, KiB resident, threads, descriptors.
  while kill -0 $process 2>/dev/null; do
    echo "$(date +%s) $(awk '/VmRSS/ {print $2}' /proc/$process/status) $(ls /proc/$process/task | wc -l) $(ls /proc/$process/fd | wc -l)"
    sleep 5
  done > "$OUT/$name.rss" 2>/dev/null || true
}
ask() { watched "$1" --watch "someone enters" --config "$OUT/faults.toml" --llm "$2" --llm-model m; }
watched none & runs=$!
ask hang "$(awk '{print $NF}' "$OUT/hang.url")" & runs="$runs $!"
ask garbage "$(awk '{print $NF}' "$OUT/garbage.url")" & runs="$runs $!"
ask dead http://127.0.0.1:9/v1 & runs="$runs $!"
wait $runs
python3 "$ROOT/tests/late/faults.py" "$OUT"
