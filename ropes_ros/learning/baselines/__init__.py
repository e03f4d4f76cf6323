"""What our methods are compared with: on the same frames, with the same backbone and as many steps.

    fitted = BASELINES["all labels"].fit(recording, seed=0, config=config, out_dir=folder)
    estimate = fitted.predict(images)

This package sees labels: true positions by way of `ropes_ros.truth` or of a simulated recording, and commands. Nothing
that learns without labels may import it.
"""

from __future__ import annotations

from functools import partial

from ropes_ros.learning.baselines.common import (
    Baseline,
    Estimate,
    Fit,
    Fitted,
    Labelled,
    LabelledFrames,
    labelled_bag,
)
from ropes_ros.learning.baselines.supervised import (
    CommandFitted,
    fit_all_labels,
    fit_command_likelihood,
    fit_commanded,
    fit_few_labels,
)
from ropes_ros.learning.baselines.unsupervised import (
    fit_autoencoder_ica,
    fit_beta_vae,
    fit_factor_subspaces,
    fit_pca_ica,
    fit_qlae,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "CommandFitted",
    "Estimate",
    "Fit",
    "Fitted",
    "Labelled",
    "LabelledFrames",
    "blurred_commands",
    "labelled_bag",
]

_ORACLE = "none in training; an oracle map (permutation and monotone curves) is fitted with up to 5000 true positions"


def _few(labels: int) -> Baseline:
    return Baseline(
        f"{labels} labels",
        f"an autoencoder on all frames, then the whole net fine-tuned on {labels} labelled frames",
        f"true positions of {labels} frames, drawn at random from the training spans",
        partial(fit_few_labels, labels=labels),
    )


def blurred_commands(blur: float) -> Baseline:
    """The likelihood of the command where the command is known to a noise of `blur` half ranges alone.

    From the command itself (0) to about what a regime tells (the levels' label noise): the spectrum of supervision.
    """
    told = "" if blur == 0.0 else f", blurred by a fixed noise of {blur:g} half ranges"
    return Baseline(
        "command likelihood" if blur == 0.0 else f"command likelihood, blur {blur:g}",
        "Gaussian about the command with learned lag and width, and a share of commands not carried out",
        f"the command over time{told}",
        partial(fit_command_likelihood, blur=blur),
    )


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            "all labels",
            "the supervised bound: Gaussian likelihood of the true position",
            "the true position of every training frame",
            fit_all_labels,
        ),
        _few(50),
        _few(200),
        _few(1000),
        Baseline(
            "commanded position",
            "least squares on the position commanded at the frame's stamp, without any lag",
            "the command over time",
            fit_commanded,
        ),
        blurred_commands(0.0),
        Baseline("PCA + ICA", "FastICA of 64 principal components of the pixels", _ORACLE, fit_pca_ica),
        Baseline(
            "autoencoder + ICA", "FastICA of an autoencoder's code of 64 numbers", _ORACLE, fit_autoencoder_ica
        ),
        Baseline("beta-VAE", "variational autoencoder whose capacity grows to 25 nats", _ORACLE, fit_beta_vae),
        Baseline("QLAE", "autoencoder with ten learned values a latent and weight decay", _ORACLE, fit_qlae),
        Baseline(
            "factor subspaces",
            "variational autoencoder with a contrastive subspace a joint, after XFactors",
            "the level of every joint, no density; an oracle map (a cubic polynomial a known subspace) is fitted with "
            "up to 5000 true positions",
            fit_factor_subspaces,
        ),
    )
}
"""All baselines by name."""
