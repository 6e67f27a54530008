"""Training from end to end, in one program: both phases, as notebooks 03 and 04 do them."""

from collections.abc import Callable, Sequence

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs.run import NETWORK, find_run, warmup_of
from helpers.training.losses import Perceptual, color_term, generator_terms
from helpers.training.trainer import Trainer


def train(
    cfg: Config, phases: Sequence[str] = ("warmup", "adversarial"), make_terms: Callable = generator_terms
) -> None:
    """Train phases as notebooks 03 and 04 do, with every process that accelerate has started.

    make_terms: a function of `cfg` and a `Perceptual` that returns the adversarial phase's loss terms. A step takes
    `cfg.batch_size` photos on each process. Raises as `dataset.prepare` and `warmup_of` do.
    """
    begun = find_run(cfg.start) if cfg.start else None
    cfg = begun.agree(cfg, NETWORK) if begun else cfg
    accelerator = workspace.make_accelerator(cfg.precision)
    workspace.seed_everything(cfg.seed)  # the same first weights on every process, and after every restart
    with accelerator.local_main_process_first():  # the others find what it downloads and prepares
        photos, perceptual = dataset.prepare(cfg), Perceptual(cfg.lpips_weights).to(accelerator.device)
        generator = begun.load(begun.phases()[-1]) if begun else Generator(**cfg.generator())
    for phase in phases:
        workspace.seed_everything(cfg.seed + accelerator.process_index)  # each draws an augmentation of its own
        discriminator, start, terms = None, begun, [color_term(cfg)]
        if phase == "adversarial":
            start, discriminator, terms = warmup_of(cfg), Discriminator(), make_terms(cfg, perceptual)
            generator = start.load("warmup")
        parts = (generator, terms, photos, augmentations(cfg), perceptual, discriminator)
        Trainer(cfg, accelerator, *parts, start=start.name if start else None).fit()
