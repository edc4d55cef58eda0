#!/usr/bin/env bash
# Answer the questions of a split with the profile's adapters (from its runs, or the shipped ones) and report.
#
#   bash recipes/evaluate.sh                                          the bundled test split
#   bash recipes/evaluate.sh --data webqa:DIR --split val             a benchmark, with its official submission file
#   bash recipes/evaluate.sh --ablate true                            train stage 2 four more times, in one table
#   bash recipes/evaluate.sh --engine ray                             on the workers of a Ray cluster
#   PROFILE=qwen3-vl-8b bash recipes/evaluate.sh --output_dir DIR …   another profile; where the results go
#
# A stopped evaluation continues when the same command is run again.
source "$(dirname "$0")/setup.sh"
source recipes/profile.sh
exec lite evaluate --config "recipes/$PROFILE/stage2.yaml" "$@"
