#!/usr/bin/env bash
# A stage or the whole chain, its Beam job on a Spark 3 cluster; all else happens here:
#
#   MASTER=spark://master:7077 SHARED=/mnt/shared/skipstream \
#     deploy/spark/launch.sh run --input '/mnt/shared/corpus/*.gz' --output OUT
#
# Needs java here, and on every node that runs executors a worker pool of the image:
# `docker run --network=host --volume=/mnt/shared:/mnt/shared IMAGE --worker_pool`. SHARED and the
# corpus have to be seen from here and by all workers: a mounted file system, or gs://. JAR is
# Beam's job server for Spark 3; without it, Beam fetches it. BEAM_OPTIONS="…" adds to what is below.
set -euo pipefail
: "${MASTER:?}" "${SHARED:?}"

# Nothing is staged but Beam's list of what is installed here, which would need a directory that
# this machine and the executors share.
# shellcheck disable=SC2086 # BEAM_OPTIONS holds several.
exec skipstream "$@" --set "transform.work_directory=$SHARED" -- \
  --runner=SparkRunner \
  --spark_master_url="$MASTER" \
  ${JAR:+--spark_job_server_jar="$JAR"} \
  --environment_type=EXTERNAL \
  --environment_config="${POOL:-localhost:50000}" \
  --experiments=disable_logging_submission_environment \
  ${BEAM_OPTIONS:-}
