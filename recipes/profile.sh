# Sourced by the stages: sets PROFILE to the one that fits the first GPU (lite/runs.py), unless it is set.
chosen=$(python -m lite.runs "${PROFILE:-}") || exit 1
PROFILE=$(tail -n 1 <<<"$chosen")
head -n -1 <<<"$chosen"
