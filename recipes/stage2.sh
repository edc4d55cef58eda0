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

# Stage 1 is the one beside this run, or else the profile's own.
output_dir=runs/$PROFILE/stage2
before=
for argument in "$@"; do
    case $argument in --output[_-]dir=*) output_dir=${argument#*=} ;; esac
    case $before in --output[_-]dir) output_dir=$argument ;; esac
    before=$argument
done
stage1=$(dirname "$output_dir")/stage1
case " $* " in
*" --stage1"[_-]"adapter"* | *" --adapter"[_-]"mode"[\ =]"fresh"* | *" --dry"[_-]"run"* | *" --help"* | *" -h "*) ;;
*)
    if [ ! -e "$stage1/report.json" ]; then
        if [ -e "$stage1" ] && [ "$stage1" != "runs/$PROFILE/stage1" ]; then
            echo "$stage1 was stopped before its end. Finish it first, by the command that began it: bash recipes/stage1.sh … --output_dir $stage1" >&2
            exit 1
        fi
        case " $* " in *" --data "* | *" --data="*)
            echo "$stage1 holds no finished stage 1. Train it on the same data first: bash recipes/stage1.sh --data … --output_dir $stage1 (or name another one: --stage1_adapter …)" >&2
            exit 1
            ;;
        esac
        if [ "$stage1" != "runs/$PROFILE/stage1" ]; then
            stage1=runs/$PROFILE/stage1
            echo "Stacked on the profile's stage 1, $stage1."
            set -- --stage1_adapter "$stage1/adapter" "$@"
        fi
    fi
    if [ ! -e "$stage1/report.json" ]; then
        # A mistake in the arguments shall show now, not when stage 1 is trained.
        lite train stage2 --config "recipes/$PROFILE/stage2.yaml" "$@" --dry_run true >/dev/null
        echo "$stage1 holds no finished stage 1: training it first."
        "${launch[@]}" train stage1 --config "recipes/$PROFILE/stage1.yaml"
    fi
    ;;
esac
exec "${launch[@]}" train stage2 --config "recipes/$PROFILE/stage2.yaml" "$@"
