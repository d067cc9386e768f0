#!/usr/bin/env bash
# A stage or the whole chain, its Beam job on Dataflow; all else happens here:
#
#   PROJECT=… REGION=europe-west1 BUCKET=gs://bucket/skipstream IMAGE=… \
#     deploy/dataflow/launch.sh run --input 'gs://corpus/*.gz'
#
# BUCKET is --output, on gs://, where workers write, too. Needs credentials (`gcloud auth
# application-default login`, or a service account) and the image of deploy/Dockerfile in a registry
# that Dataflow reads. BEAM_OPTIONS="--max_num_workers=50 …" adds to what is below.
set -euo pipefail
: "${PROJECT:?}" "${REGION:?}" "${BUCKET:?}" "${IMAGE:?}" "${1:?a command: run, or transform}"
command="$1"
shift

# shellcheck disable=SC2086 # BEAM_OPTIONS holds several.
exec skipstream "$command" --output "$BUCKET" "$@" -- \
  --runner=DataflowRunner \
  --project="$PROJECT" \
  --region="$REGION" \
  --temp_location="$BUCKET/temp" \
  --sdk_container_image="$IMAGE" \
  --sdk_location=container \
  ${BEAM_OPTIONS:-}
