"""What a student changes in the cells of 03 and 04, each in a kernel, and what came out: `make stress`."""

import shutil

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_tools import code_of, edited, printed, read, run, up_to

LAST = {"03_warmup_training": "wu-fit", "04_adversarial_training": "ad-fit"}
PICTURES = ["wu-toy", "wu-toy-photos", "wu-toy-curve", "ad-duel", "ad-duel-figure", "ad-play"]
PICTURES += ["ad-players", "ad-weights", "ad-weights-table", "ad-proof"]
WARMUP, GAME = LAST

D_LOSS, GAN = "d_real, d_fake = bce(real, 1.0), bce(fake, 0.0)", "gan, error = bce(judge(batch.L, ab), 1.0)"
D_NORM, D_LOG = "d_norm = descend((d_real + d_fake) / 2, discriminator", 'log = {"D real": d_real'
ADAM = "torch.optim.Adam(generator.parameters(), g_lr, betas=(0.5, 0.999), fused=True)"
OPPONENT, TRAINER, IMPORT = "opponent = Discriminator()\n", "trainer = Trainer(", "from helpers.data.batches import "
PREDICT = "        ab = generator(batch.L)  # (N, 2, H, W)\n        real"
NETWORKS = '{"generator": (generator, g_optimizer), '
R1 = """truth = batch.ab.clone().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(batch.L, truth).sum(), truth, create_graph=True)
        r1 = slope.square().sum((1, 2, 3)).mean()
        d_norm = descend((d_real + d_fake) / 2 + 5 * r1, discriminator"""
SMALL = """small = Discriminator().to(device)
small, s_optimizer = accelerator.prepare(small, torch.optim.Adam(small.parameters(), cfg.adversarial_lr))


def half(maps):
    return F.avg_pool2d(maps, 2)


trainer = Trainer("""
SMALL_STEP = """s_real, s_fake = small(half(batch.L), half(batch.ab)), small(half(batch.L), half(ab.detach()))
        s_loss = (bce(s_real, 1.0) + bce(s_fake, 0.0)) / 2
        descend(s_loss, small, s_optimizer)
        d_norm = """
SMALL_GAN = """with frozen(small) as second:
            small_gan = bce(second(half(batch.L), half(ab)), 1.0)
        gan, error = bce(judge(batch.L, ab), 1.0) + small_gan"""
MIXUP = """        shares = 0.5 * torch.rand(len(batch.L), 1, 1, 1, device=device)
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
ACCUMULATION = """def warmup_step(*several):
    optimizer.zero_grad()
    for batch in several:
        loss = color_loss(generator(batch.L), batch.ab)
        accelerator.backward(loss / len(several))
    norm = accelerator.clip_grad_norm_(generator.parameters(), cfg.clip_norm)
    optimizer.step()
    return {cfg.color_loss: loss, "G gradient": norm}


def the_old_step(batch):"""
SPECTRAL = "from torch.nn.utils.parametrizations import spectral_norm\n"
MINE = next(cell.source for cell in code_of(read("02_model")) if cell.source.startswith("class MyDiscriminator"))
FIRST, LATER = (f"layers[{i}].parametrizations.weight.original" for i in (0, 3))
UNMOVED = [f"torch.equal(discriminator.{part}, opponent.{part})" for part in (FIRST, LATER)]
NOISY = [("print(f", NOISE + "f"), ("ab = generator(batch.L)", "ab = generator(batch.L, torch.randn_like(batch.L))")]
HINGE = [
    (D_LOSS, "d_real, d_fake = torch.relu(1 - real).mean(), torch.relu(1 + fake).mean()"),
    (GAN, "gan, error = -judge(batch.L, ab).mean()"),
    ("# n_critic=2,", "precision='fp32',  # n_critic=2,"),
]
SQUARES = [
    (D_LOSS, "d_real, d_fake = (real - 1).square().mean(), fake.square().mean()"),
    (GAN, "gan, error = (judge(batch.L, ab) - 1).square().mean()"),
]
TWO = [
    (TRAINER, SMALL),
    ("d_norm = ", SMALL_STEP),
    (GAN, SMALL_GAN),
    (NETWORKS, NETWORKS + '"small": (small, s_optimizer), '),
    (D_LOG, 'log = {"D small": s_loss, "D real": d_real'),
]
PENALTY = [(D_NORM, R1), (D_LOG, 'log = {"D R1": r1, "D real": d_real')]
MIXED = [(PREDICT, MIXUP), (IMPORT, f"{IMPORT}lab_batch, ")]
RMSPROP = [(ADAM, "torch.optim.RMSprop(generator.parameters(), g_lr)")]
ADAMW = [(ADAM, "torch.optim.AdamW(generator.parameters(), g_lr, weight_decay=0.1)")]
OWN = [(OPPONENT, f"{SPECTRAL}{MINE}\nopponent = MyDiscriminator()\n")]
SEVERAL = [
    ("def warmup_step(batch):", ACCUMULATION),
    ("    start=start.name if", "    batches_per_step=2,\n    start=start.name if"),
]
PARTLY = [(OPPONENT, f"{OPPONENT}opponent.layers[0].requires_grad_(False)\n")]
COMMENT = [("    with frozen(", "    # now the generator\n    with frozen(")]
STRONGER = [*NOISY, ("strength = 0.5", "strength = 0.6")]
LAMBDA = [("# lambda_l1=100,", "lambda_l1=40,")]

# notebook, texts to replace, what to look at then, what came out; or the refusal
EDITS = {
    "hinge": (GAME, HINGE, "bool(trainer.steps['GAN'].min() < 0.4), len(history)", "(True, 2)"),
    "LSGAN": (GAME, SQUARES, "len(history)", "2"),
    "R1": (GAME, PENALTY, "history['D R1'].gt(0).all()", "True"),
    "two discriminators, one at half size": (GAME, TWO, "'D small' in history, len(trainer.unwrapped)", "(True, 3)"),
    "mixup": (GAME, MIXED, "len(history)", "2"),
    "noise as a second input": (WARMUP, NOISY, "trainer.run.load('warmup').layers.weight.shape[1]", "2"),
    "RMSprop": (GAME, RMSPROP, "type(g_optimizer.optimizer).__name__", "RMSprop"),
    "AdamW with weight decay": (GAME, ADAMW, "g_optimizer.param_groups[0]['weight_decay']", "0.1"),
    "the discriminator of 02": (GAME, OWN, "type(discriminator).__name__", "MyDiscriminator"),
    "accumulation over two batches": (WARMUP, SEVERAL, "len(train_batches) // 2 * 2 == len(trainer.steps)", "True"),
    "a frozen part of the discriminator": (GAME, PARTLY, ", ".join(UNMOVED), "(True, False)"),
    "a value that the step uses": (GAME, LAMBDA, "", "step.cfg.lambda_l1: 50.0 then, 40 now"),
    "a comment": (GAME, COMMENT, "len(trainer.history)", "is finished"),
    "a class attribute of the network": (WARMUP, STRONGER, "", "class.strength: 0.5 then, 0.6 now"),
}
BEGUN = {
    "a value that the step uses": (GAME, []),
    "a comment": (GAME, []),
    "a class attribute of the network": (WARMUP, NOISY),
}  # by an earlier training of the same run


def train(workspace, name, edits, look=""):
    """Run the cells of a notebook up to `fit`, after some edits; return all that it printed, or its error."""
    dropped = [each for each in PICTURES if each[:3] == LAST[name][:3]]
    notebook = edited(up_to(read(name), LAST[name], dropped), *edits)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print('came out:', ({look or None}))"))
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
