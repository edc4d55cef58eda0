# Installs the pinned packages, once, and puts them on the PATH. The other recipes source it first.
#
# Works in .venv, or in the virtual or conda environment that is active (conda's `base` does not count: it holds conda's
# own packages). Adds the GPU packages where nvidia-smi answers.
# A second call does nothing until a requirements file or pyproject.toml changes. Needs no root; installs nothing outside
# the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# CUDA_VISIBLE_DEVICES= (set, and empty) leaves a GPU alone.
if [ -n "${CUDA_VISIBLE_DEVICES-all}" ] && nvidia-smi >/dev/null 2>&1; then requirements=requirements-gpu.txt; else requirements=requirements.txt; fi

[ "${CONDA_DEFAULT_ENV:-}" = base ] && CONDA_PREFIX=
active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
environment=${active:-$PWD/.venv}
stamp=$environment/.mmrag-lite-$(cat "$requirements" pyproject.toml <(pwd; echo "${UV_TORCH_BACKEND:-}") | cksum | cut -d ' ' -f 1)

if [ ! -e "$stamp" ]; then
    if [ -x "$environment/bin/python" ]; then  # before gigabytes are downloaded
        "$environment/bin/python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || {
            echo "Python 3.11 or 3.12 is needed; $environment has $("$environment/bin/python" --version). Deactivate it (deactivate, conda deactivate), or remove it if it is .venv; then run this again." >&2
            exit 1
        }
    fi
    if [ -z "$active" ] && [ ! -x .venv/bin/python ]; then
        if command -v uv >/dev/null; then
            uv venv --quiet --python '>=3.11,<3.13' .venv
        else
            python=$(command -v python3.11 || command -v python3.12 || command -v python3)
            "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || {
                echo "Python 3.11 or 3.12 is needed; $python is $("$python" --version). Install one, or install uv: it brings its own." >&2
                exit 1
            }
            "$python" -m venv .venv || { echo "Debian and Ubuntu keep venv apart: install python3-venv, or install uv." >&2; exit 1; }
        fi
    fi
    if ! command -v uv >/dev/null && [ ! -x "$environment/bin/uv" ]; then
        # an environment that uv made has no pip
        "$environment/bin/python" -m pip --version >/dev/null 2>&1 || "$environment/bin/python" -m ensurepip >/dev/null
        "$environment/bin/python" -m pip install --quiet uv
    fi
    uv=$(command -v uv || echo "$environment/bin/uv")
    echo "Installing $requirements into $environment (about 6 GB, two to four minutes) …"
    # Compiled now, or every first start of a command would compile its imports: twice as slow.
    "$uv" pip install --quiet --compile-bytecode --python "$environment/bin/python" --requirement "$requirements"
    "$uv" pip install --quiet --python "$environment/bin/python" --no-deps --editable .
    if [ "$requirements" = requirements-gpu.txt ] && ! "$environment/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
        echo "torch cannot use this GPU with NVIDIA driver ${driver:-unknown}; CUDA 13 needs 580 or newer. Update the driver; or take PyTorch's build for an older one: UV_TORCH_BACKEND=cu126 (driver 560 or newer) before the command; or leave the GPU alone: CUDA_VISIBLE_DEVICES= PROFILE=tiny before the command." >&2
        exit 1  # without the stamp: the next call looks again
    fi
    rm -f "$environment"/.mmrag-lite-*
    touch "$stamp"
    echo "Installed. source $environment/bin/activate puts lite on the PATH."
fi
export PATH="$environment/bin:$PATH"

# Tiny matrices: a second thread costs more than it brings (measured 5 to 20 times slower on shared machines).
[ "$requirements" = requirements-gpu.txt ] || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
