"""Watching a training: when to stop, the means of an epoch, and what has collapsed."""

import math


class EarlyStopping:
    """Remember the lowest value of an epoch, and say when `patience` epochs have passed without a lower one."""

    def __init__(self, patience):
        self.patience, self.best, self.best_epoch, self.should_stop = patience, float("inf"), 0, False

    def update(self, epoch, value):
        """Take an epoch's value; return whether it is the lowest so far."""
        if value < self.best:
            self.best, self.best_epoch = float(value), epoch
        self.should_stop = bool(epoch - self.best_epoch >= self.patience)
        return self.best_epoch == epoch


def epoch_means(steps):
    """Return the means of a table of steps; a gradient may overflow now and then (fp16 scales its loss by trial)."""
    norms = [name for name in steps if name.endswith("gradient")]
    finite = steps[norms].where(steps[norms].abs() < float("inf"))
    return {**steps.drop(columns=["epoch", *norms]).mean(skipna=False), **finite.mean()}


def refuse_bad_numbers(steps, before, folder):
    """Raise FloatingPointError that says where the last good state is, if a loss of a table of steps is no number.

    before: how many steps came before the table's. A gradient's norm may overflow: fp16 scales its loss by trial.
    """
    losses = steps[[name for name in steps if not name.endswith("gradient")]]
    bad = losses[~losses.abs().lt(float("inf")).all(axis=1)]
    if len(bad):
        names = [name for name, value in bad.iloc[0].items() if not math.isfinite(value)]
        raise FloatingPointError(
            f"At step {before + bad.index[0] + 1}, {', '.join(names)} became {bad.iloc[0][names[0]]}. Lower the "
            f'learning rate, or try precision="fp32", under a new run name. The last good state is in {folder}.'
        )


def collapse_warnings(row):
    """Name what has collapsed in an epoch, if anything: a list of sentences.

    row: an epoch of the history. Looks at the discriminator's accuracy, at the colourfulness of the photos and for
    losses that are no numbers.
    """
    found = []
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        found.append(f"not a number: {', '.join(bad)}. Lower the learning rate.")
    right = min(row.get("D right on real", 0), row.get("D right on fake", 0))
    if right > 0.99:
        found.append(
            "the discriminator has won (over 99% right): the generator learns little from it. Lower adversarial_lr, or "
            "raise lambda_l1."
        )
    if row.get("D right on real", 1) < 0.05 or row.get("D right on fake", 1) < 0.05:
        found.append(
            "the discriminator has collapsed to one answer: it calls everything real, or everything fake. Lower "
            "adversarial_lr, and start over (restart=True)."
        )
    if "D real" in row and row["val colourfulness"] < 0.1 * row["val truth"]:
        found.append("the photos are grey: under 10% of the truth's colourfulness. Lower lambda_l1.")
    return found
