#!/usr/bin/env bash
# Stage 2: train ranking and answering with a reasoning chain, on top of the same profile's stage 1.
#
#   bash recipes/stage2.sh                          the profile that fits this machine
#   PROFILE=qwen3-vl-8b bash recipes/stage2.sh      another profile (a folder in recipes/)
#   ACCELERATE=multi_gpu bash recipes/stage2.sh     on all GPUs of this machine, see docs/scaling.md
#   bash recipes/stage2.sh --dry_run true           shows what it would do and need; trains nothing
#   bash recipes/stage2.sh --max_steps 20 …         every further argument overrides the profile's stage2.yaml
#
# If stage 1 is missing, it is trained first (except with --data: train it on the same data first). Running it again
# continues a stopped run. The results are in runs/<profile>/stage2/report.md.
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
    lite train stage2 --config "$config" "$@" --dry_run true >/dev/null  # shows a mistake in the arguments now
    echo "$stage1 holds no finished stage 1: training it first."
    "${launch[@]}" train stage1 --config "recipes/$PROFILE/stage1.yaml"
fi
exec "${launch[@]}" train stage2 --config "$config" "$@"
