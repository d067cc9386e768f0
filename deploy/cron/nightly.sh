#!/bin/sh
# One run: again after a failure, up to three times, but not after a refusal. Prints only what went
# wrong; everything is in nightly.log.
#
#   SKIPSTREAM_HOME=/srv/skipstream nightly.sh
home="${SKIPSTREAM_HOME:-/srv/skipstream}"
run_id="$(date -u +%Y%m%dT%H%M%SZ)"
tries=3
while :; do
  last="$(mktemp)"
  skipstream run --config "$home/settings.toml" --output "$home/out" --run-id "$run_id" \
    > "$last" 2>&1
  code=$?
  cat "$last" >> "$home/nightly.log"
  [ $code -eq 0 ] || { echo "skipstream $run_id exited with $code: $(tail -n 1 "$last")"; }
  rm -f "$last"
  tries=$((tries - 1))
  case $code in
  0 | 2 | 3) exit $code ;; # Done, wrong usage, refused by a gate: trying again changes nothing.
  esac
  [ $tries -gt 0 ] || exit $code
  sleep "${SKIPSTREAM_RETRY_SECONDS:-300}"
done
