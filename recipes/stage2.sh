#!/usr/bin/env bash
# Stage 2: train ranking and answering with a reasoning chain, on top of the same profile's stage 1.
#
#   bash recipes/stage2.sh                          the profile that fits this machine
#   PROFILE=qwen3-vl-8b bash recipes/stage2.sh      another one (a folder of recipes/)
#   ACCELERATE=multi_gpu bash recipes/stage2.sh       on all GPUs of this machine, see recipes/accelerate/
#   bash recipes/stage2.sh --dry_run true           what it would do and need; trains nothing
#   bash recipes/stage2.sh --max_steps 20 …         every further argument overrides the profile's stage2.yaml
#
# Trains stage 1 first where its adapter is missing. Running it again continues a stopped run. The results are in
# runs/<profile>/stage2/report.md.
source "$(dirname "$0")/setup.sh"
source recipes/profile.sh
source recipes/launch.sh
case " $* " in
*" --stage1_adapter"* | *" --dry_run"* | *" --help"* | *" -h "*) ;;
*)
    if [ ! -e "runs/$PROFILE/stage1/report.json" ]; then
        case " $* " in *" --data"*)
            echo "runs/$PROFILE/stage1 holds no finished stage 1. Train it on the same data first: bash recipes/stage1.sh --data …" >&2
            exit 1
            ;;
        esac
        # A mistake in the arguments shall show now, not when stage 1 is trained.
        lite train stage2 --config "recipes/$PROFILE/stage2.yaml" "$@" --dry_run true >/dev/null
        echo "runs/$PROFILE/stage1 holds no finished stage 1: training it first."
        "${launch[@]}" train stage1 --config "recipes/$PROFILE/stage1.yaml"
    fi
    ;;
esac
exec "${launch[@]}" train stage2 --config "recipes/$PROFILE/stage2.yaml" "$@"
