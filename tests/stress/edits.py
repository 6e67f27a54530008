"""What a student changes in the cells of 03 and 04, each in a kernel, and what came out: `make stress`."""

import shutil

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_tools import code_of, edited, printed, read, run, up_to

LAST = {"03_warmup_training": "wu-fit", "04_adversarial_training": "ad-fit"}
PICTURES = ["wu-batch", "wu-toy", "wu-toy-photos", "wu-toy-curve", "ad-duel", "ad-duel-figure", "ad-play"]
PICTURES += ["ad-players", "ad-weights", "ad-weights-table", "ad-proof"]
WARMUP, GAME = LAST

D_LOSS, D_STEP = "d_real, d_fake = bce(real, 1.0), bce(fake, 0.0)", "descend((d_real + d_fake) / 2, discriminator"
GAN, D_LOG, ADAM = (
    "gan, error = bce(judge(batch.L, ab), 1.0)",
    'log = {"D real": d_real',
    "torch.optim.Adam(each.parameters(), lr, betas=(0.5, 0.999), fused=True)",
)
OPPONENT, TRAINER = "opponent = Discriminator(shrink=cfg.discriminator_shrink)\n", "trainer = Trainer("
PREDICT = "        ab = generator(batch.L)  # (N, 2, H, W)\n        real"
R1 = """truth = batch.ab.clone().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(batch.L, truth).sum(), truth, create_graph=True)
        r1 = slope.square().sum((1, 2, 3)).mean()
        d_norm = descend((d_real + d_fake) / 2 + 5 * r1, discriminator"""
SMALL = """small = Discriminator(shrink=2).to(device)
small, s_optimizer = accelerator.prepare(small, torch.optim.Adam(small.parameters(), cfg.adversarial_lr))
trainer = Trainer("""
SMALL_STEP = """s_loss = (bce(small(batch.L, batch.ab), 1.0) + bce(small(batch.L, ab.detach()), 0.0)) / 2
        descend(s_loss, small, s_optimizer)
        d_norm = """
SMALL_GAN = """with frozen(small) as second:
            small_gan = bce(second(batch.L, ab), 1.0)
        gan, error = bce(judge(batch.L, ab), 1.0) + small_gan"""
MIXUP = """shares = 0.5 * torch.rand(len(batch.L), 1, 1, 1, device=device)
        batch = lab_batch(batch.rgb.lerp(batch.rgb.roll(1, 0), shares))
        ab = generator(batch.L)
        real"""
NOISE = """class Noisy(torch.nn.Module):
    strength = 0.5

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, L, noise=None):
        noise = torch.zeros_like(L) if noise is None else noise
        return torch.tanh(self.layers(torch.cat([L, self.strength * noise], 1)))


network = Noisy()
print("""
ACCUMULATION = """def warmup_step(*batches):
    optimizer.zero_grad()
    for batch in batches:
        loss = color_loss(generator(batch.L), batch.ab)
        accelerator.backward(loss / len(batches))
    norm = accelerator.clip_grad_norm_(generator.parameters(), cfg.clip_norm)
    optimizer.step()
    return {cfg.color_loss: loss, "G gradient": norm}


def the_old_step(batch):"""
MINE = next(cell.source for cell in code_of(read("02_model")) if cell.source.startswith("class MyDiscriminator"))
FIRST, LATER = (f"layers[{i}].parametrizations.weight.original" for i in (0, 3))
NETWORKS = '{"generator": (generator, g_optimizer), '
NOISY = [("print(f", NOISE + "f"), ("ab = generator(batch.L)", "ab = generator(batch.L, torch.randn_like(batch.L))")]

# notebook, texts to replace, what to look at then, what came out; or the refusal
EDITS = {
    "hinge": (
        GAME,
        [(D_LOSS, "d_real, d_fake = F.relu(1 - real).mean(), F.relu(1 + fake).mean()"), (GAN, "gan, error = -judge(batch.L, ab).mean()")],
        "trainer.steps['GAN'].min() < 0.4, len(history)",
        "(True, 2)",
    ),
    "LSGAN": (
        GAME,
        [(D_LOSS, "d_real, d_fake = (real - 1).square().mean(), fake.square().mean()"), (GAN, "gan, error = (judge(batch.L, ab) - 1).square().mean()")],
        "len(history)",
        "2",
    ),
    "R1": (GAME, [("d_norm = " + D_STEP, R1), (D_LOG, 'log = {"D R1": r1, "D real": d_real')], "history['D R1'].gt(0).all()", "True"),
    "two discriminators, one at half size": (
        GAME,
        [(TRAINER, SMALL), ("d_norm = ", SMALL_STEP), (GAN, SMALL_GAN), (NETWORKS, NETWORKS + '"small": (small, s_optimizer), '), (D_LOG, 'log = {"D small": s_loss, "D real": d_real')],
        "'D small' in history, [*trainer.unwrapped]",
        "(True, ['generator', 'small', 'discriminator'])",
    ),
    "mixup": (GAME, [(PREDICT, "        " + MIXUP), ("from helpers.data.batches import ", "from helpers.data.batches import lab_batch, ")], "len(history)", "2"),
    "noise as a second input": (WARMUP, NOISY, "trainer.run.load('warmup').layers.weight.shape[1]", "2"),
    "RMSprop": (GAME, [(ADAM, "torch.optim.RMSprop(each.parameters(), lr)")], "[type(each.optimizer).__name__ for each in trainer.optimizers]", "['RMSprop', 'RMSprop']"),
    "AdamW with weight decay": (GAME, [(ADAM, "torch.optim.AdamW(each.parameters(), lr, weight_decay=0.1)")], "g_optimizer.param_groups[0]['weight_decay']", "0.1"),
    "the discriminator of 02": (
        GAME,
        [(OPPONENT, f"from torch.nn.utils.parametrizations import spectral_norm\n{MINE}\nopponent = MyDiscriminator()\n")],
        "type(discriminator).__name__",
        "MyDiscriminator",
    ),
    "gradient accumulation over two batches": (
        WARMUP,
        [("def warmup_step(batch):", ACCUMULATION), ("    start=start.name if", "    batches_per_step=2,\n    start=start.name if")],
        "len(train_batches) // 2 * 2 == len(trainer.steps)",
        "True",
    ),
    "a frozen part of the discriminator": (
        GAME,
        [(OPPONENT, f"{OPPONENT}opponent.layers[0].requires_grad_(False)\n")],
        f"torch.equal(discriminator.{FIRST}, opponent.{FIRST}), torch.equal(discriminator.{LATER}, opponent.{LATER})",
        "(True, False)",
    ),
    "a value that the step uses": (GAME, [("# lambda_l1=100,", "lambda_l1=40,")], "", "step.cfg.lambda_l1: 50.0 then, 40 now"),
    "a comment": (GAME, [("    with frozen(", "    # now the generator\n    with frozen(")], "len(trainer.history)", "is finished"),
    "a class attribute of the network": (WARMUP, [*NOISY, ("strength = 0.5", "strength = 0.6")], "", "class.strength: 0.5 then, 0.6 now"),
}  # fmt: skip
BEGUN = {
    "a value that the step uses": (GAME, []),
    "a comment": (GAME, []),
    "a class attribute of the network": (WARMUP, NOISY),
}  # by an earlier training of the same run


def train(workspace, name, edits, look=""):
    """Run the cells of a notebook up to `fit`, after some edits; return all that it printed, or its error."""
    dropped = [each for each in PICTURES if each[:3] == LAST[name][:3]]
    notebook = edited(up_to(read(name), LAST[name], dropped), *edits)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print('came out:', {look or None})"))
    try:
        return printed(run(notebook, workspace))
    except CellExecutionError as error:
        return f"came out: {str(error).strip().splitlines()[-1]}"


@pytest.fixture(scope="module")
def warmed_up(tmp_path_factory):
    """A workspace with a warmup."""
    workspace = tmp_path_factory.mktemp("warmup")
    assert "came out" in train(workspace, WARMUP, [])
    return workspace


@pytest.mark.parametrize("name", EDITS)
def test_a_change_of_a_cell(name, warmed_up, tmp_path):
    workspace = tmp_path / "workspace"
    notebook, edits, look, wanted = EDITS[name]
    if notebook == GAME:
        shutil.copytree(warmed_up, workspace)
    if name in BEGUN:
        train(workspace, *BEGUN[name])
    said = train(workspace, notebook, edits, look)
    print(f"{name}: {said[said.find('came out:') :]}")
    assert wanted in said
