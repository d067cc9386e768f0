#!/bin/sh
# Runners start the image with Beam's flags (--id=…, --worker_pool), people and schedulers with a
# command.
case "${1:---help}" in
--help) exec skipstream --help ;;
--*) exec /opt/apache/beam/boot "$@" ;;
*) exec "$@" ;;
esac
