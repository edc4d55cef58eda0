# Sourced by the stages: sets PROFILE from the memory of the first GPU, unless it is set.
if [ -n "${PROFILE:-}" ]; then
    [ -e "recipes/$PROFILE/stage1.yaml" ] || { echo "There is no recipes/$PROFILE/stage1.yaml. Profiles: $(cd recipes && ls */stage1.yaml | xargs -n 1 dirname | xargs)" >&2; exit 1; }
    echo "Profile $PROFILE, as asked."
else
    mebibytes=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1 | grep -xE "[0-9]+" || true)
    if [ "${mebibytes:-0}" -ge 22000 ]; then
        PROFILE=qwen3-vl-4b
    elif [ "${mebibytes:-0}" -ge 11000 ]; then
        PROFILE=qwen3-vl-2b
    else
        PROFILE=tiny
    fi
    if [ -n "$mebibytes" ]; then
        echo "Profile $PROFILE: the GPU has $mebibytes MiB (22000 are wanted for qwen3-vl-4b, 11000 for qwen3-vl-2b)."
    else
        echo "Profile tiny: no NVIDIA GPU answers. The embedded model knows only flags; it is for trying everything."
    fi
fi
