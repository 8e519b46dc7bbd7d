#!/usr/bin/env bash
# Start a program of this project under accelerate: on all visible GPUs, else on the CPU. See docs/launch.md.
#
#   ./launch.sh                                        the demo: synthesise, build, train
#   ./launch.sh --config FILE [--section.field VALUE]  train
#   ./launch.sh evaluate.py --model DIR ...            another program
#   ./launch.sh transcribe MODEL FILE ...              transcribe files, which the processes share
#   ./launch.sh pseudolabel MODEL --data.path ...      label audio without text, which the processes share
#   ./launch.sh --gpus 0,2 ...                         on these GPUs; arguments after -- go to the program
#   NPROC=2 ./launch.sh ...                            in two processes: on two GPUs, or gloo on a CPU
#   NODES=2 NODE_RANK=0 MASTER_ADDR=HOST ./launch.sh ...  on the first of two machines
#   ACCELERATE_CONFIG=FILE ./launch.sh ...             with this configuration of accelerate
#   ./launch.sh --dry_run ...                          print the command line and start nothing
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -x "$here/.venv/bin/python" ]; then PATH="$here/.venv/bin:$PATH"; fi
if ! python -IS -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: no Python 3.11 or newer; run \`make setup\` in $here, or activate an environment that has it" >&2
  exit 2
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec python -P -m whisper_ft.cli.launch "$@" # -P: the current folder may hold another whisper_ft
