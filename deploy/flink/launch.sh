#!/usr/bin/env bash
# A stage or the whole chain, its Beam job on a Flink cluster; all else happens here:
#
#   MASTER=jobmanager:8081 SHARED=/mnt/shared/skipstream PARALLELISM=16 \
#     deploy/flink/launch.sh run --input '/mnt/shared/corpus/*.gz' --output OUT
#
# Needs java here, and beside every task manager a worker pool of the image (taskmanager.yaml).
# SHARED and the corpus have to be seen from here and by all workers: a mounted file system, or
# gs://. JAR is Beam's job server for the Flink of the cluster; without it, Beam fetches it.
# BEAM_OPTIONS="…" adds to what is below.
set -euo pipefail
: "${MASTER:?}" "${SHARED:?}"

# Nothing is staged but Beam's list of what is installed here, which would need a directory that
# this machine and the task managers share.
# shellcheck disable=SC2086 # BEAM_OPTIONS holds several.
exec skipstream "$@" --set "transform.work_directory=$SHARED" -- \
  --runner=FlinkRunner \
  --flink_master="$MASTER" \
  --flink_version="${FLINK:-2.2}" \
  ${JAR:+--flink_job_server_jar="$JAR"} \
  --parallelism="${PARALLELISM:-1}" \
  --environment_type=EXTERNAL \
  --environment_config="${POOL:-localhost:50000}" \
  --experiments=disable_logging_submission_environment \
  ${BEAM_OPTIONS:-}
