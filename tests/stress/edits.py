"""What a student changes in the cells of 03 and 04, each in a kernel, and what came out: `make stress`."""

import shutil

import nbformat
import pytest
from notebook_tools import code_of, edited, printed, read, run, up_to

LAST = {"03_warmup_training": "wu-fit", "04_adversarial_training": "ad-fit"}
PICTURES = ["wu-batch", "wu-toy", "wu-toy-photos", "wu-toy-curve", "ad-duel", "ad-duel-figure", "ad-play"]
PICTURES += ["ad-players", "ad-weights", "ad-weights-table", "ad-proof"]
WARMUP, GAME = LAST

GAN = "gan, error = bce(judge(batch.L, ab), 1.0)"
D_LOG = 'log = {"D real": d_real'
OPPONENT, TRAINER = "opponent = Discriminator()\n", "trainer = Trainer("
NETWORKS = '{"generator": (generator, g_optimizer), '
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
TWO = [
    (TRAINER, SMALL),
    ("d_norm = ", SMALL_STEP),
    (GAN, SMALL_GAN),
    (NETWORKS, NETWORKS + '"small": (small, s_optimizer), '),
    (D_LOG, 'log = {"D small": s_loss, "D real": d_real'),
]
OWN = [(OPPONENT, f"{SPECTRAL}{MINE}\nopponent = MyDiscriminator()\n")]
SEVERAL = [
    ("def warmup_step(batch):", ACCUMULATION),
    ("    start=start.name if", "    batches_per_step=2,\n    start=start.name if"),
]

# notebook, texts to replace, what to look at then, what came out
EDITS = {
    "two discriminators, one at half size": (GAME, TWO, "'D small' in history, len(trainer.unwrapped)", "(True, 3)"),
    "the discriminator of 02": (GAME, OWN, "type(discriminator).__name__", "MyDiscriminator"),
    "accumulation over two batches": (WARMUP, SEVERAL, "len(train_batches) // 2 * 2 == len(trainer.steps)", "True"),
}


def train(workspace, name, edits, look="None"):
    """Run the cells of a notebook up to `fit`, after some edits; return all that it printed."""
    dropped = [each for each in PICTURES if each[:3] == LAST[name][:3]]
    notebook = edited(up_to(read(name), LAST[name], dropped), *edits)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print('came out:', ({look}))"))
    return printed(run(notebook, workspace))


@pytest.fixture(scope="module")
def warmed_up(tmp_path_factory):
    """A workspace with a warmup."""
    workspace = tmp_path_factory.mktemp("warmup")
    train(workspace, WARMUP, [])
    return workspace


@pytest.mark.parametrize("name", EDITS)
def test_a_change_of_a_cell(name, warmed_up, tmp_path):
    workspace = tmp_path / "workspace"
    notebook, edits, look, wanted = EDITS[name]
    if notebook == GAME:
        shutil.copytree(warmed_up, workspace)
    said = train(workspace, notebook, edits, look)
    print(f"{name}: {said[said.find('came out:') :]}")
    assert wanted in said
