#!/usr/bin/env bash
# Start a program of this project under accelerate: on all GPUs that are visible, else on the CPU. See docs/launch.md.
#
#   ./launch.sh                                        the demo: synthesise, build, train
#   ./launch.sh --config FILE [--section.field VALUE]  train
#   ./launch.sh evaluate.py --model DIR ...            another program
#   ./launch.sh --gpus 0,2 ...                         on these GPUs; what stands after a -- is the program's alone
#   NPROC=2 ./launch.sh ...                            in two processes: on two GPUs, or gloo on a CPU
#   NODES=2 NODE_RANK=0 MASTER_ADDR=HOST ./launch.sh ...  on the first of two machines
#   ACCELERATE_CONFIG=FILE ./launch.sh ...             as this configuration of accelerate says
#   ./launch.sh --dry_run ...                          what would be started, and nothing more
#
# The last line is `accelerate launch --config_file FILE train.py ...`, run by whisper_ft.runtime.launch so that signals reach
# the program and its exit code comes back.
set -efuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

refuse() {
  echo "error: $*" >&2
  exit 2
}

note() { echo "note: $*" >&2; }

is_count() { case "$1" in "" | 0* | *[!0-9]* | ??????*) return 1 ;; esac }

# What other launchers left in the environment: the programs would believe it.
clear_environment() {
  if [ -n "${TORCHELASTIC_RUN_ID:-}" ] || [ "${OMPI_COMM_WORLD_LOCAL_SIZE:-1}" -gt 1 ]; then
    refuse "launch.sh was started by torchrun, accelerate launch or mpirun; start it by itself, once on each machine"
  fi
  if [ "${SLURM_STEP_NUM_TASKS:-1}" -gt "${SLURM_STEP_NUM_NODES:-1}" ]; then
    refuse "srun starts $SLURM_STEP_NUM_TASKS tasks; one on each machine is needed: srun --ntasks-per-node=1"
  fi
  local left="" name
  for name in RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE; do left+=${!name:+ $name=${!name}}; done
  [ -z "$left" ] || note "in the environment:$left; not used, launch.sh numbers its processes itself"
  unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE
  unset PMI_RANK PMI_SIZE OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE} # the first two are in every task of Slurm
  if [ -n "${TMPDIR:-}" ] && ! { [ -d "$TMPDIR" ] && [ -w "$TMPDIR" ]; }; then
    note "TMPDIR=$TMPDIR is no folder that can be written to; not used"
    unset TMPDIR
  fi
}

find_python() {
  if [ -x "$here/.venv/bin/python" ]; then PATH="$here/.venv/bin:$PATH"; fi
  local look='from importlib.util import find_spec as f; exit(not (f("accelerate") and f("jsonargparse")))'
  if ! python -c "$look" 2>/dev/null; then
    refuse "python here has no accelerate; run \`make setup\` in $here, or activate an environment that has it"
  fi
  # For `python -P -m whisper_ft...` from any folder; -P because the current one may hold another whisper_ft.
  export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
}

# gpus: what --gpus names. dry_run: yes with --dry_run. arguments: all others.
read_arguments() {
  gpus="" dry_run="" arguments=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --gpus | --gpus=*)
        [ -z "$gpus" ] || refuse "--gpus is given twice; name all GPUs at once, as in --gpus 0,2"
        gpus=${1#--gpus=}
        if [ "$1" = --gpus ]; then gpus=${2-} && shift $(($# > 1)); fi
        case ",$gpus," in *[!0-9,]* | *,,*) refuse "--gpus${gpus:+ $gpus}: numbers are needed, as in --gpus 0,2" ;; esac
        ;;
      --dry_run) dry_run=yes ;;
      --)
        arguments+=("${@:2}")
        return
        ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
}

# known: the GPUs of this machine, as ",0,1,". visible: how many of them the programs will see.
find_gpus() {
  local number entry listed
  known=","
  # A line "GPU 0: ..." for each; those of slices (MIG) are indented.
  if listed=$(nvidia-smi -L 2>&1); then
    for number in $(printf '%s\n' "$listed" | sed -n 's/^GPU \([0-9]*\):.*/\1/p'); do known+="$number,"; done
  elif command -v nvidia-smi >/dev/null; then
    note "nvidia-smi finds no GPU that works: ${listed%%$'\n'*}"
  fi
  visible=0 on_cpu=""
  for entry in $(printf '%s' "${CUDA_VISIBLE_DEVICES-$known}" | tr , ' '); do
    # CUDA takes the entries before the first that names nothing, such as -1; UUIDs are left to it.
    case "$entry" in GPU-* | MIG-*) [ "$known" != , ] ;; *) [[ $known == *",$entry,"* ]] ;; esac || break
    visible=$((visible + 1))
  done
  case "${ACCELERATE_USE_CPU:-}" in 1 | [Tt]rue | TRUE | [Yy]es)
    [ "$visible" -eq 0 ] || note "ACCELERATE_USE_CPU=$ACCELERATE_USE_CPU: on the CPU; GPUs that could be used: $visible"
    visible=0 on_cpu=yes
    ;;
  esac
}

# A torch for the CPU would leave the GPUs idle. It is asked without its import, which takes seconds.
ask_torch() {
  local look='from importlib.util import find_spec as f; from runpy import run_path as r'
  look+='; print(r(f("torch").origin.replace("__init__", "version"))["cuda"])'
  [ "$(python -P -c "$look")" != None ] ||
    note "torch here is built without CUDA: it uses no GPU; install one with CUDA"
}

choose_gpus() {
  local gpu chosen=","
  [ "$known" != , ] || refuse "--gpus $gpus: nvidia-smi finds no GPU here; leave --gpus out to train on the CPU"
  [ "$visible" -gt 0 ] || refuse "--gpus $gpus: CUDA_VISIBLE_DEVICES or ACCELERATE_USE_CPU hides all GPUs; unset it"
  visible=0
  for gpu in ${gpus//,/ }; do
    [[ $known == *",$gpu,"* ]] || refuse "--gpus $gpus: there is no GPU $gpu; nvidia-smi -L lists${known//,/ }"
    [[ $chosen != *",$gpu,"* ]] || refuse "--gpus $gpus: GPU $gpu is named twice"
    [[ ",${CUDA_VISIBLE_DEVICES-$known}," == *",$gpu,"* ]] ||
      refuse "--gpus $gpus: GPU $gpu is not in CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES; unset one of the two"
    chosen+="$gpu,"
    visible=$((visible + 1))
  done
  export CUDA_VISIBLE_DEVICES=$gpus CUDA_DEVICE_ORDER=${CUDA_DEVICE_ORDER:-PCI_BUS_ID} # as nvidia-smi counts
}

# nproc: processes on this machine.
count_processes() {
  nproc=${NPROC:-$((visible > 0 ? visible : 1))}
  is_count "$nproc" || refuse "NPROC=$nproc: a number of processes from 1 up is needed"
  [ -z "$gpus" ] || [ "$nproc" -eq "$visible" ] || refuse "NPROC=$nproc and --gpus $gpus contradict; leave NPROC out"
  [ "$visible" -eq 0 ] || [ "$nproc" -le "$visible" ] ||
    refuse "NPROC=$nproc: a GPU has one process, and $visible can be seen; ACCELERATE_USE_CPU=true would use the CPU"
}

# nodes, rank, master, port: from our variables, torchrun's, or those of a task that srun started.
find_machines() {
  nodes=${NODES:-${NNODES:-${SLURM_STEP_NUM_NODES:-1}}} rank=${NODE_RANK:-} master=${MASTER_ADDR:-}
  port=${MASTER_PORT:-29500} # torchrun's: one that all machines know before they meet
  is_count "$nodes" || refuse "NODES=$nodes: a number of machines from 1 up is needed"
  if [ "$nodes" -eq 1 ]; then
    [ "${rank:-0}" = 0 ] || refuse "NODE_RANK=$rank: NODES is missing, the number of machines"
    return
  fi
  rank=${rank:-${SLURM_NODEID:-}}
  if [ -z "$master" ] && [ -n "${SLURM_STEP_NODELIST:-}" ]; then
    master=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
  fi
  local missing=""
  [ -n "$rank" ] || missing+=", NODE_RANK (0 to $((nodes - 1)), another on each machine)"
  [ -n "$master" ] || missing+=", MASTER_ADDR (the machine with NODE_RANK=0)"
  [ -z "$missing" ] || refuse "NODES=$nodes: missing:${missing#,}"
  case "$rank" in 0) ;; *) is_count "$rank" && [ "$rank" -lt "$nodes" ] ;; esac ||
    refuse "NODE_RANK=$rank: with NODES=$nodes it is a number from 0 to $((nodes - 1))"
  is_count "$port" && [ "$port" -le 65535 ] ||
    refuse "MASTER_PORT=$port: a port is needed, 1 to 65535, the same on all machines"
  is_count "${JOIN_SECONDS:-600}" || refuse "JOIN_SECONDS=$JOIN_SECONDS: a number of seconds is needed"
}

# shape: the options of `accelerate launch`. What was counted here wins over what stands in its file.
choose_configuration() {
  local config=accelerate_config.yaml
  if [ -n "${ACCELERATE_CONFIG:-}" ]; then
    [ -f "$ACCELERATE_CONFIG" ] || refuse "ACCELERATE_CONFIG=$ACCELERATE_CONFIG: there is no such file"
    [ -z "${NPROC:-}${NODES:-}$gpus" ] ||
      refuse "ACCELERATE_CONFIG=$ACCELERATE_CONFIG counts the processes; leave out NPROC, NODES and --gpus"
    # From any folder: with no arguments the programs start in that of this script.
    ACCELERATE_CONFIG=$(cd "$(dirname "$ACCELERATE_CONFIG")" && pwd)/$(basename "$ACCELERATE_CONFIG")
    shape=(--config_file "$ACCELERATE_CONFIG" ${rank:+--machine_rank "$rank"})
    return
  fi
  if [ "$nodes" -gt 1 ]; then
    config=configs/accelerate/several_nodes.yaml
  elif [ "$visible" -gt 0 ]; then
    config=configs/accelerate/one_gpu.yaml
    if [ "$nproc" -gt 1 ]; then config=configs/accelerate/several_gpus.yaml; fi
  elif [ "$nproc" -gt 1 ]; then
    config=configs/accelerate/cpu_processes.yaml
  fi
  shape=(--config_file "$here/$config" --num_processes $((nodes * nproc)))
  # For one process accelerate overwrites ACCELERATE_USE_CPU with what its options say.
  if [ -n "$on_cpu" ] && [ "$nodes" -eq 1 ] && [ "$nproc" -eq 1 ]; then shape+=(--cpu); fi
  if [ "$nodes" -gt 1 ]; then
    shape+=(--num_machines "$nodes" --machine_rank "$rank" --main_process_ip "$master" --main_process_port "$port")
    shape+=(--rdzv_conf "timeout=${JOIN_SECONDS:-600}") # how long one machine waits for the others at the start
  fi
}

prepare_cpu() {
  # `accelerate launch --cpu --num_processes 2` starts one process, and --multi_gpu alone two unconnected ones; with
  # this variable they form one gloo group. Threads are shared out, or N processes would use N times the cores.
  export ACCELERATE_USE_CPU=${ACCELERATE_USE_CPU:-true}
  local cores
  cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  if [ -z "${ACCELERATE_CONFIG:-}" ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > nproc ? cores / nproc : 1))}
  fi # else that file counts the processes, and accelerate shares the cores out
  # Threads that spin while they wait take the cores that others need: beside two busy processes on two cores, training
  # was 1.8 times as fast with this limit, and as fast on a quiet machine.
  export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
}

# One line that a shell would run alike, but for signals and exit codes.
show() {
  local name
  for name in CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER ACCELERATE_USE_CPU OMP_NUM_THREADS; do
    [ -z "${!name+set}" ] || printf '%s=%q ' "$name" "${!name}"
  done
  printf 'accelerate launch'
  printf ' %q' "$@"
  echo
}

clear_environment
find_python
read_arguments "$@"
find_gpus
if [ -n "$gpus" ]; then choose_gpus; fi
count_processes
find_machines
choose_configuration

if [ ${#arguments[@]} -eq 0 ]; then
  cd "$here"
  arguments=(--config configs/demo.yaml)
fi
set -- "${arguments[@]}"
program="$here/train.py"
case "$1" in *.py)
  program=$1
  shift
  [ -f "$program" ] || program="$here/$(basename "$program")"
  ;;
esac
if [ "$visible" -eq 0 ]; then prepare_cpu; else ask_torch; fi
if [ -n "$dry_run" ]; then
  show "${shape[@]}" "$program" "$@"
  exit
fi
# Once, before any process starts: a command line that cannot work ends here with one line and exit code 2, --help is
# told, and what the demo's configurations train on is made (by `python -m whisper_ft demo --out demo-data`).
checked=0
python -P -m whisper_ft.cli.check "$program" "$@" || checked=$?
case "$checked" in
  0) ;;
  100) exit 0 ;; # it was --help: nothing to start
  *) exit "$checked" ;;
esac

exec python -P -m whisper_ft.runtime.launch "${shape[@]}" "$program" "$@"
