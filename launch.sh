#!/usr/bin/env bash
# Start a program of this project under accelerate.
#
#   ./launch.sh                                        the demo: synthesise, build, train
#   ./launch.sh --config FILE [--section.field VALUE]  train
#   ./launch.sh evaluate.py --model DIR ...            another program
#   NPROC=2 ./launch.sh ...                            in two processes (GPUs, or gloo on a CPU)
#
# The last line is `accelerate launch --config_file accelerate_config.yaml train.py ...`, run by whisper_ft.launcher so
# that signals reach the program and its exit code comes back.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -x "$here/.venv/bin/python" ] && PATH="$here/.venv/bin:$PATH"
if ! python -c 'from importlib.util import find_spec as f; exit(not (f("accelerate") and f("jsonargparse")))' 2>/dev/null; then
  echo "error: python here has no accelerate; run \`make setup\` in $here, or activate an environment that has it" >&2
  exit 2
fi
# For `python -P -m whisper_ft...` from any folder; -P because the current one may hold another whisper_ft.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

if [ $# -eq 0 ]; then
  cd "$here"
  set -- --config configs/demo.yaml
fi
program="$here/train.py"
case "$1" in *.py)
  program=$1
  shift
  [ -f "$program" ] || program="$here/$(basename "$program")"
  ;;
esac

nproc=${NPROC:-1}
case "$nproc" in *[!0-9]* | 0*)
  echo "error: NPROC=$nproc: a number of processes from 1 up is needed" >&2
  exit 2
  ;;
esac
# Once, before any process starts: a command line that cannot work ends here with one line and exit code 2, --help is
# told, and what the demo's configurations train on is made (by `python -m whisper_ft.demo --out demo-data`).
checked=0
python -P -m whisper_ft.commandline "$program" "$@" || checked=$?
case "$checked" in
  0) ;;
  100) exit 0 ;; # it was --help: nothing to start
  *) exit "$checked" ;;
esac

shape=(--num_processes "$nproc")
if [ "$nproc" -gt 1 ]; then shape+=(--multi_gpu); fi
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  # `accelerate launch --cpu --num_processes 2` starts one process, and --multi_gpu alone two unconnected ones; with
  # this variable they form one gloo group. Threads are shared out, or N processes would use N times the cores.
  export ACCELERATE_USE_CPU=true
  cores=$(nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > nproc ? cores / nproc : 1))}
  # Threads that spin while they wait take the cores that others need: beside two busy processes on two cores, training
  # was 1.8 times as fast with this limit, and as fast on a quiet machine.
  export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
fi
exec python -P -m whisper_ft.launcher --config_file "$here/accelerate_config.yaml" "${shape[@]}" "$program" "$@"
