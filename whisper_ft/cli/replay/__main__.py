"""Print the utterances of a training step, without a model: `python -m whisper_ft replay --run_dir DIR --step N`.

Steps are counted from 0. A run that continues from checkpoint step-N does step N next, and reports it in metrics.jsonl
as step N + 1. One JSON line is printed for each position of the global batch, in order. With --windows, one is printed
for each window of the model, for which the audio is read. With --audio, the sound of each window is written, too.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.cli.replay.step_rows import configuration, replay
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError, as_usage_error
from whisper_ft.runtime.printable import counted, json_text, say


def main(argv: Sequence[str] | None = None) -> int:
    """Print the batch, and return the exit code. A missing run, step or data set is an error of one line and code 2."""
    parser = Parser(prog="python -m whisper_ft replay", description=replay.__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, help="run directory")
    parser.add_argument("--step", type=int, required=True, help="step, counted from 0")
    parser.add_argument(
        "--windows",
        action="store_true",
        help="print the windows of the step in place of its utterances, each with the start of every utterance in it; "
        "this reads the audio, and the tokenizer of the model",
    )
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        help="write each window into this folder as the model hears it, and print it as --windows does, with the draws "
        "of augmentation",
    )
    parser.add_argument("--data.path", dest="data_path", metavar="PATH", help="present path of the run's data")

    def program() -> None:
        args = parser.parse_args(argv)
        if args.step < 0:
            raise UsageError(f"--step must be 0 or more, got {args.step}")
        config = configuration(args.run_dir, args.data_path)
        rows = replay(config, args.step)
        if config.epochs is None and args.step >= (steps := config.steps_over(0)):
            raise UsageError(f"--step {args.step}: the run has {counted(steps, 'step')}, so give 0 to {steps - 1}")
        if not rows:
            raise UsageError(f"--step {args.step}: the run ends before it, after epochs: {config.epochs:g}")
        if args.windows or args.audio:
            print_windows(config, args.step, args.audio)
            return
        for row in rows:
            say(json_text(row))

    return exit_code_of(program)


def print_windows(config: TrainingConfig, step: int, audio: Path | None) -> None:
    """Print the windows of a step, and write their sound into a folder if `audio` names one.

    torch is imported here, because nothing else of the command needs it.
    """
    from normalizers import get_normalizer
    from whisper_ft.cli.replay.step_windows import windows_of_step
    from whisper_ft.data.labels.rewrite import LabelNormalizer
    from whisper_ft.models.whisper import quiet_libraries
    from whisper_ft.training.preflight import refuse_missing_model

    quiet_libraries()
    refuse_missing_model("model.name", config.model.name)
    with as_usage_error("data.normalizer"):
        rewrite = LabelNormalizer.named(config.data.normalizer, get_normalizer)
    for line in windows_of_step(config, step, rewrite, audio):
        say(json_text(line))


if __name__ == "__main__":
    sys.exit(main())
