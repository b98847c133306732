"""Distance kernels against what is at hand, in the same run.

Prints Markdown tables: milliseconds (medians of at least five, competitors taking turns), rates,
ratios to the first line of each table, the share of rows certified at once, and the goals, each
hit or missed. Data are random; a shape whose device is not there prints "not measured".

    python benchmarks/kernels.py [--device cpu|cuda|auto] [--quick] [--only NAME] [--threads N]
"""

import argparse
import gc

import kernel_cases_cpu
import kernel_cases_cuda
import rounds
import torch


def main() -> None:
    """Runs all the cases, or those whose name holds ``--only``, and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--quick", action="store_true", help="small shapes, three turns")
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    has_cuda = torch.cuda.is_available()
    if arguments.device == "cuda" and not has_cuda:
        parser.error("--device cuda: torch sees no CUDA device")
    repeats = 3 if arguments.quick else 5
    lines = rounds.header()
    groups = []
    if arguments.device in ("cpu", "auto"):
        lines.append(kernel_cases_cpu.limit_threads(arguments.threads))
        groups.append(("cpu", kernel_cases_cpu.cases(arguments.quick)))
    if arguments.device in ("cuda", "auto"):
        groups.append(("cuda", kernel_cases_cuda.cases(arguments.quick)))
    lines.append(f"medians of {repeats} turns, competitors one after the other in every turn")
    print("\n".join(f"- {line}" for line in lines))
    for device, cases in groups:
        print(f"\n## {device.upper()}\n")
        for case in cases:
            if arguments.only not in f"{device} {case.name}":
                continue
            if device == "cuda" and not has_cuda:
                readings = rounds.not_measured(case)
            else:
                readings = rounds.measure(case, device, repeats)
            print(rounds.table(case, readings), flush=True)
            gc.collect()
            if device == "cuda" and has_cuda:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
