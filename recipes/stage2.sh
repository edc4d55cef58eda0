#!/usr/bin/env bash
# Stage 2: train ranking and answering with a reasoning chain, on top of the same profile's stage 1.
#
#   bash recipes/stage2.sh                          the profile that fits this machine
#   PROFILE=qwen3-vl-8b bash recipes/stage2.sh      another one (a folder of recipes/)
#   ACCELERATE=multi_gpu bash recipes/stage2.sh       on all GPUs of this machine, see recipes/accelerate/
#   bash recipes/stage2.sh --dry_run true           what it would do and need; trains nothing
#   bash recipes/stage2.sh --max_steps 20 …         every further argument overrides the profile's stage2.yaml
#
# Trains stage 1 first where it is missing (not with --data: train it on the same data first). Running it again continues
# a stopped run. The results are in runs/<profile>/stage2/report.md.
source "$(dirname "$0")/setup.sh"
source recipes/profile.sh
source recipes/launch.sh
config=recipes/$PROFILE/stage2.yaml
found=$(python -m lite.train.needs_stage1 --config "$config" "$@") || exit 1
read -r where stage1 <<<"$found" || true
if [ "$where" = profile ]; then
    echo "Stacked on the profile's stage 1, $stage1."
    set -- --stage1_adapter "$stage1/adapter" "$@"
fi
if [ -n "$where" ] && [ ! -e "$stage1/report.json" ]; then
    lite train stage2 --config "$config" "$@" --dry_run true >/dev/null  # a mistake in the arguments must show now
    echo "$stage1 holds no finished stage 1: training it first."
    "${launch[@]}" train stage1 --config "recipes/$PROFILE/stage1.yaml"
fi
exec "${launch[@]}" train stage2 --config "$config" "$@"
