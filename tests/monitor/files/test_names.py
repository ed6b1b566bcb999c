"""The names of columns that trainers and loggers use."""

import pytest

from gradclip.monitor._files._names import role_of


@pytest.mark.parametrize(
    ("column", "role"),
    [
        ("grad_norm", "norm"),
        ("train/grad_norm", "norm"),
        ("Grad Norm", "norm"),
        ("grad-norm", "norm"),
        ("optim/total_grad_norm", "norm"),
        ("grad_2.0_norm_total", "norm"),
        ("brave-sun-7 - train/grad_norm", "norm"),
        ("brave-sun-7 - train/grad_norm__MIN", None),
        ("grad_norm/layers.0.weight", "parameter:layers.0.weight"),
        ("grad_2.0_norm/layers.0.weight", "parameter:layers.0.weight"),
        ("grad_inf_norm/a/b", "parameter:a/b"),
        ("gradclip/max_norm", "max_norm"),
        ("gradclip/skipped", "skipped"),
        ("gradclip/clipped_step", "clipped"),
        ("gradclip/clipped_epoch", None),
        ("train/gradclip/coefficient", "coefficient"),
        ("val/gradclip/clipped", None),
        ("trainer/global_step", "step"),
        ("Step", "step"),
        ("train_loss", "loss"),
        ("train/loss", "loss"),
        ("eval/loss", None),
        ("val_loss", None),
        ("validation/grad_norm", None),
        ("epoch", None),
        ("", None),
    ],
)
def test_what_a_column_holds(column, role):
    found = role_of(column)
    assert (found and found[0]) == role


def test_the_usual_name_comes_before_others():
    assert role_of("grad_norm")[1] < role_of("gnorm")[1]
    assert role_of("step")[1] < role_of("global_step")[1]
