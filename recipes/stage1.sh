#!/usr/bin/env bash
# Stage 1: train the relevance filter and report on it.
#
#   bash recipes/stage1.sh                          the profile that fits this machine
#   PROFILE=qwen3-vl-8b bash recipes/stage1.sh      another profile (a folder in recipes/)
#   ACCELERATE=multi_gpu bash recipes/stage1.sh     on all GPUs of this machine, see docs/scaling.md
#   bash recipes/stage1.sh --dry_run true           shows what it would do and need; trains nothing
#   bash recipes/stage1.sh --max_steps 40 …         every further argument overrides the profile's stage1.yaml
#
# Running it again continues a stopped run. The results are in runs/<profile>/stage1/report.md.
source "$(dirname "$0")/setup.sh"
source recipes/profile.sh
source recipes/launch.sh
exec "${launch[@]}" train stage1 --config "recipes/$PROFILE/stage1.yaml" "$@"
