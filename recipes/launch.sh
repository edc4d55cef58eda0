# Sourced by the stages: sets `launch`, the command that starts a training. With ACCELERATE set, that is `accelerate
# launch` with a file of recipes/accelerate/ or your own, on PROCESSES GPUs (by default all that nvidia-smi lists).
launch=(lite)
if [ -n "${ACCELERATE:-}" ]; then
    file=recipes/accelerate/$ACCELERATE.yaml
    [ -f "$ACCELERATE" ] && file=$ACCELERATE
    [ -f "$file" ] || { echo "$file does not exist. Known: $(cd recipes/accelerate && ls | sed 's/\.yaml$//' | xargs); or give the path of a file." >&2; exit 1; }
    case $ACCELERATE in
    multi_gpu | zero2) PROCESSES=${PROCESSES:-$({ nvidia-smi --list-gpus 2>/dev/null || true; } | grep -c .)} || true ;;
    esac
    case ${PROCESSES:-} in
    0 | 1) echo "$ACCELERATE needs at least two GPUs; nvidia-smi lists ${PROCESSES}. Without ACCELERATE the recipe runs on one." >&2; exit 1 ;;
    esac
    launch=(accelerate launch --config_file "$file" ${PROCESSES:+--num_processes "$PROCESSES"} --module lite.cli)
fi
