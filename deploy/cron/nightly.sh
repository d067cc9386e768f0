#!/bin/sh
# One run: again after a failure, up to three times, but not after a refusal. Prints only what went
# wrong; everything is in nightly.log.
#
#   OUT=gs://BUCKET/skipstream SKIPSTREAM_HOME=/srv/skipstream nightly.sh
#
# OUT may be s3://BUCKET/PATH or a directory, too.
: "${OUT:?must be a bucket and path, or a directory}"
home="${SKIPSTREAM_HOME:-/srv/skipstream}"
run_id="$(date -u +%Y%m%dT%H%M%SZ)"
tries=3
while :; do
  last="$(mktemp)"
  skipstream run --config "$home/settings.toml" --output "$OUT" --run-id "$run_id" \
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
