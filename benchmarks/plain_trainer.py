"""The fine-tune as most people write it: sentence-transformers' own trainer in one script, no service around it.

    python -m benchmarks.plain_trainer FOLDER PAIRS.tsv --kind lora

Same loss, batch, dtype, priority and threads as a job of the service. With LoRA the encoder's own dropout is off, as
the service has it: drawing it takes a third of the time on a CPU, which would pass for a gain of the service. Prints
one JSON line: seconds until the first step (imports and loading), seconds of the steps, pairs.
"""

from __future__ import annotations

import time

_BEGAN = time.monotonic()

import argparse
import json
import os
import sys
import tempfile
from typing import Any


def main() -> None:
    """Trains once; the result is thrown away."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_trainer", description=__doc__)
    parser.add_argument("folder", help="the base model")
    parser.add_argument("pairs", help="lines of query, tab, passage")
    parser.add_argument("--kind", choices=("full", "lora"), default="lora")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-seq-length", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--niceness", type=int, default=0)
    options = parser.parse_args()
    os.nice(options.niceness)
    print(json.dumps(_train(options)), flush=True)


def _train(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """When the steps began."""

        began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = self.began or time.monotonic()

    torch.set_num_threads(options.threads)
    with open(options.pairs, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SentenceTransformer(options.folder, device=str(device))
    model.max_seq_length = options.max_seq_length
    if options.kind == "lora":
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        modules = ["query", "key", "value", "dense"]
        model.add_adapter(LoraConfig(TaskType.FEATURE_EXTRACTION, r=16, lora_alpha=32, target_modules=modules))
    else:
        model[0].model.get_input_embeddings().requires_grad_(False)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder, num_train_epochs=1, per_device_train_batch_size=options.batch_size,
                batch_sampler="no_duplicates", dataloader_drop_last=True, learning_rate=options.learning_rate,
                warmup_ratio=0.1, bf16=_computes_in_bfloat16(device), use_cpu=device.type == "cpu", save_strategy="no",
                report_to="none", disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(
                {"query": [f"query: {row[0]}" for row in rows], "passage": [f"passage: {row[1]}" for row in rows]}
            ),
            loss=CachedMultipleNegativesRankingLoss(model, mini_batch_size=16),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    ended = time.monotonic()
    steps = trainer.state.global_step
    return {"start_s": clock.began - _BEGAN, "train_s": ended - clock.began, "pairs": steps * options.batch_size}


def _computes_in_bfloat16(device: Any) -> bool:
    """As the service decides it."""
    import torch

    from serve_app.models.transformer import choose_dtype

    return choose_dtype("auto", device) is torch.bfloat16


if __name__ == "__main__":
    sys.exit(main())
