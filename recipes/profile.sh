# Sourced by the stages: sets PROFILE to the profile that fits the first GPU (see lite/runs.py), unless you have set it.
chosen=$(python -m lite.runs "${PROFILE:-}") || exit 1
PROFILE=$(tail -n 1 <<<"$chosen")
head -n -1 <<<"$chosen"
