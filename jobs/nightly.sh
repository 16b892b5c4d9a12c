#!/bin/sh
# The nightly loop of a server: events -> training -> gate -> publication.    sh nightly.sh FOLDER [NIGHT]
#
# FOLDER holds   config.toml   a run, with [data] events = "log/events.parquet"; paths are relative to FOLDER
#                base.parquet  optional: the log of the first training (or base.csv)
#                events.db     the store of the server (or RECSYS_STORE names it)
#                current       the pointer that `recsys serve current` watches; the first night makes it
# A night that fails, or a model that is worse than the best baseline, publishes nothing: the older bundle goes on.
# Exit codes are those of recsys: 3 is the gate.
set -eu
cd "$1"
night=${2:-$(date -u +%Y-%m-%d)}
base=
for file in base.parquet base.csv; do
    if [ -f "$file" ]; then base="--base $file"; fi
done

# Other users of the machine see arguments, so the URL of RECSYS_STORE, which may have a password, is none.
store=
if [ -z "${RECSYS_STORE:-}" ]; then store=events.db; fi

recsys log export $store log $base
recsys run config.toml --set out=runs/"$night"
recsys compare runs/"$night" --fail-if "${RECSYS_GATE:-ndcg@10 drops 0.0}"
recsys bundle runs/"$night" bundles/"$night" --publish current
