# Sourced by the stages: sets `launch`, what starts a training. With ACCELERATE, `accelerate launch` and one of
# recipes/accelerate/ (or a file of yours): on PROCESSES cards, by default all that nvidia-smi lists.
launch=(lite)
if [ -n "${ACCELERATE:-}" ]; then
    file=recipes/accelerate/$ACCELERATE.yaml
    [ -f "$ACCELERATE" ] && file=$ACCELERATE
    [ -f "$file" ] || { echo "There is no $file. Known: $(cd recipes/accelerate && ls | sed 's/\.yaml$//' | xargs); or give a file." >&2; exit 1; }
    case $ACCELERATE in
    multi_gpu | zero2) PROCESSES=${PROCESSES:-$({ nvidia-smi --list-gpus 2>/dev/null || true; } | grep -c .)} || true ;;
    esac
    case ${PROCESSES:-} in
    0 | 1) echo "$ACCELERATE wants at least two GPUs; nvidia-smi lists ${PROCESSES}. Without ACCELERATE the recipe runs on one." >&2; exit 1 ;;
    esac
    launch=(accelerate launch --config_file "$file" ${PROCESSES:+--num_processes "$PROCESSES"} --module lite.cli)
fi
