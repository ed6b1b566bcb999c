"""`GradClipCallback` in runs of the Trainer of Transformers and of TRL's SFTTrainer."""

import json
import math

import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from gradclip.backends.transformers import GradClipCallback
from gradclip.monitor import NormMonitor
from tests.integrations.helpers import (
    BATCH,
    MAX_NORM,
    POLICY,
    STEPS,
    assert_differ,
    assert_same,
    check_log,
    data,
    enable_fp16,
    net,
    share,
    weights,
)


class InOrder(Trainer):
    """A Trainer that takes the data in order, so that each run has the same batches."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


def trainer(folder, max_grad_norm, callbacks, kind=InOrder, **arguments):
    given = {
        "max_steps": STEPS, "logging_steps": 1, "learning_rate": 0.05, "optim": "adamw_torch", "adam_epsilon": 1e-3,
        "per_device_train_batch_size": BATCH, "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "disable_tqdm": True, "remove_unused_columns": False, "seed": 3, **arguments,
    }  # fmt: skip
    x, y = data()
    rows = [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
    return kind(
        net(), TrainingArguments(str(folder), max_grad_norm=max_grad_norm, **given), train_dataset=rows,
        callbacks=callbacks,
    )  # fmt: skip


def run(folder, max_grad_norm=0.0, callbacks=(), resume=None, **arguments):
    made = trainer(folder, max_grad_norm, list(callbacks), **arguments)
    made.train(resume_from_checkpoint=resume)
    return made


def steps(made):
    return [row for row in made.state.log_history if "loss" in row]


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("arguments", [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}], ids=["", "bf16", "acc"])
def test_it_trains_as_the_trainers_own_clipping(tmp_path, optim, arguments):
    theirs = run(tmp_path, MAX_NORM, optim=optim, **arguments)
    ours = run(tmp_path, 0, [GradClipCallback(MAX_NORM, eps=1e-6)], optim=optim, **arguments)
    assert_same(ours.model, theirs.model, 1e-5)
    unclipped = run(tmp_path, 0, optim=optim, **arguments)
    assert_differ(ours.model, unclipped.model)
    for mine, other in zip(steps(ours), steps(theirs), strict=True):
        assert math.isclose(mine["grad_norm"], other["grad_norm"], rel_tol=1e-5)
        check_log(mine)


def test_the_log_has_the_share_of_clipped_steps_since_the_last(tmp_path):
    each = [row["grad_norm"] for row in steps(run(tmp_path, 0, [GradClipCallback(MAX_NORM)]))]
    rows = steps(run(tmp_path, 0, [GradClipCallback(MAX_NORM)], logging_steps=4))
    assert [row["gradclip/clipped"] for row in rows] == [share(each[:4]), share(each[4:])]
    assert [row["grad_norm"] for row in rows] == [each[3], each[7]]


def test_clipping_twice_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"max_grad_norm=1\.0, expected 0 with GradClipCallback"):
        trainer(tmp_path, 1.0, [GradClipCallback(1.0)])
    late = trainer(tmp_path, 1.0, [])
    late.add_callback(GradClipCallback(1.0))
    with pytest.raises(ValueError, match="gradients would be clipped twice"):
        late.train()


def test_wrong_arguments_are_refused_when_the_callback_is_made():
    with pytest.raises(ValueError, match="max_norm"):
        GradClipCallback(-1.0)
    with pytest.raises(TypeError, match="max_nrom"):
        GradClipCallback(1.0, max_nrom=2.0)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("precision", ["32", "fp16"])
def test_a_resumed_run_has_the_thresholds_that_it_would_have_had(tmp_path, precision, optim):
    arguments = {"kind": Fp16 if precision == "fp16" else InOrder, "optim": optim}
    whole = run(tmp_path / "whole", 0, [GradClipCallback(POLICY)], **arguments)
    arguments |= {"save_strategy": "steps", "save_steps": 4}
    run(tmp_path / "parts", 0, [GradClipCallback(POLICY)], **arguments)
    checkpoint = tmp_path / "parts" / "checkpoint-4"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["GradClipCallback"]
    assert saved["attributes"]["saved"]["clippings"][0]["policies"]["all"]["count"] > 0
    resumed = run(tmp_path / "parts", 0, [GradClipCallback(POLICY)], resume=str(checkpoint), **arguments)
    names = ("grad_norm", "gradclip/coefficient", "gradclip/max_norm")
    for mine, other in zip(steps(resumed), steps(whole), strict=True):
        assert [mine[name] for name in names] == [other[name] for name in names]
    assert_same(resumed.model, whole.model, 0)
    assert len({row["gradclip/max_norm"] for row in steps(whole)}) > 2


def test_callbacks_that_the_trainer_makes_anew(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": True}
    whole = run(tmp_path, 0, [GradClipCallback(MAX_NORM)], **arguments)
    checkpoint = str(tmp_path / "checkpoint-4")
    resumed = run(tmp_path, 0, [GradClipCallback(7.0)], resume=checkpoint, **arguments)
    assert_same(resumed.model, whole.model, 0)  # clipped by what the checkpoint says
    run(tmp_path, 0, [GradClipCallback(POLICY)], **arguments)
    with pytest.raises(ValueError, match=r"made a callback without max_norm=ZClip.* leave it False"):
        run(tmp_path, 0, [GradClipCallback(POLICY)], resume=checkpoint, **arguments)


def test_reporters_get_the_numbers_if_it_is_added_before_them(tmp_path):
    seen = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.append(dict(logs))

    made = trainer(tmp_path, 0, [Reporter()])
    assert GradClipCallback(MAX_NORM).add_to(made) is made.callback_handler.callbacks[0]
    made.train()
    for row in seen[:STEPS]:
        check_log(row)


def test_the_handle_and_the_monitor(tmp_path):
    monitor = NormMonitor()
    callback = GradClipCallback(MAX_NORM, monitor=monitor)
    assert callback.clipping is None
    made = run(tmp_path, 0, [callback])
    assert callback.clipping is None, "the optimizer is free after training"
    assert monitor.history().norm.tolist() == [row["grad_norm"] for row in steps(made)]


def test_trl_inherits_it(tmp_path):
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {word: i for i, word in enumerate(["<pad>", "<eos>", *map(str, range(30))])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "<eos>")), pad_token="<pad>", eos_token="<eos>"
    )
    rows = Dataset.from_dict({"input_ids": torch.randint(2, 32, (16, 8), generator=torch.manual_seed(0)).tolist()})

    def sft(max_grad_norm, callbacks):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
        )
        arguments = SFTConfig(
            str(tmp_path), max_grad_norm=max_grad_norm, max_steps=4, logging_steps=1, report_to="none", use_cpu=True,
            save_strategy="no", per_device_train_batch_size=4, disable_tqdm=True, optim="sgd", bf16=False,
            learning_rate=0.1, max_length=8,
        )  # fmt: skip
        made = SFTTrainer(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=callbacks
        )
        made.train()
        return made

    theirs, ours = sft(0.5, []), sft(0, [GradClipCallback(0.5, eps=1e-6)])
    assert_same(ours.model, theirs.model)
    assert all(row["gradclip/clipped"] == 1 for row in steps(ours))
    with pytest.raises(ValueError, match=r"max_grad_norm=0\.5"):
        sft(0.5, [GradClipCallback(0.5)])


class Fp16(InOrder):
    """The Trainer leaves out fp16 on a CPU. This gives its Accelerator what it would have on a GPU."""

    scale = 128.0  # 1024 overflows at the bad batches

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        enable_fp16(self.accelerator, self.scale)


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_fp16_with_a_scaler_trains_as_the_trainers_own_clipping(tmp_path, optim, accumulate):
    arguments = {"optim": optim, "gradient_accumulation_steps": accumulate}
    theirs = run(tmp_path, MAX_NORM, kind=Fp16, **arguments)
    ours = run(tmp_path, 0, [GradClipCallback(MAX_NORM, eps=1e-6)], kind=Fp16, **arguments)
    assert ours.accelerator.scaler.get_scale() == Fp16.scale
    assert_same(ours.model, theirs.model, 1e-5)
    assert_differ(ours.model, run(tmp_path, 0, kind=Fp16, **arguments).model)
    in_fp32 = run(tmp_path, 0, [GradClipCallback(MAX_NORM, eps=1e-6)], **arguments)
    assert not torch.equal(weights(ours.model), weights(in_fp32.model))
    for mine, other in zip(steps(ours), steps(theirs), strict=True):
        check_log(mine)
        assert math.isclose(mine["grad_norm"], other["grad_norm"], rel_tol=1e-5)


class Overflowing(Fp16):
    scale = 2.0**18


def test_a_step_that_the_scaler_skips_is_not_counted(tmp_path):
    monitor = NormMonitor()
    ours = run(tmp_path, 0, [GradClipCallback(MAX_NORM, monitor=monitor)], kind=Overflowing)
    assert ours.accelerator.scaler.get_scale() < Overflowing.scale
    norms = monitor.history().norm
    assert 0 < len(norms) < STEPS
    assert all(map(math.isfinite, norms))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16=True of the Trainer needs a GPU")
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_fp16_on_a_gpu_trains_as_the_trainers_own_clipping(tmp_path, optim):
    arguments = {"optim": optim, "fp16": True, "use_cpu": False}
    theirs = run(tmp_path, MAX_NORM, **{**arguments, "optim": "adamw_torch"})
    ours = run(tmp_path, 0, [GradClipCallback(MAX_NORM, eps=1e-6)], **arguments)
    assert_same(ours.model, theirs.model, 1e-4)
