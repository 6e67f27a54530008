"""The generator: sizes, skips, encoders by name and their weights, hints."""

import cv2
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from malicious import MaliciousPickle
from torch import nn

from helpers.models.blocks import ResidualBlock, UpBlock, binomial, init_weights
from helpers.models.generator import Encoder, Generator

SMALL = "test_efficientnet"  # 80,000 weights, and all five levels
FILE = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(SMALL, None, res_blocks=1).eval()


def lightness(*size):
    return torch.rand(1, 1, *size) * 2 - 1


@torch.no_grad()
def test_ab_never_leaves_its_range():
    generator = Generator(SMALL, None, res_blocks=0)
    generator.head.weight.mul_(1e4)
    ab = generator(lightness(64, 64))
    assert 0.99 < ab.abs().max() <= 1 and ab.std() > 0.1


@pytest.mark.parametrize("size", [(33, 97), (64, 64), (101, 130)])
@torch.no_grad()
def test_ab_has_the_size_of_L_and_padding_repeats_the_edge(generator, size):
    """A photo that needs padding, and the same photo continued at its edge by hand, get the same colors."""
    L, (height, width) = lightness(*size), size
    padded = F.pad(L, (0, -width % 32, 0, -height % 32), mode="replicate")
    assert generator(L).shape == (1, 2, *size)
    assert torch.allclose(generator(L), generator(padded)[..., :height, :width], atol=1e-6)


@pytest.mark.parametrize("level", range(5))
@torch.no_grad()
def test_every_skip_and_the_bottleneck_reach_the_output(generator, level):
    L = lightness(64, 64)
    usual, changed = generator(L), [x + (i == level) for i, x in enumerate(generator.encoder(L))]
    hook = generator.encoder.register_forward_hook(lambda module, inputs, output: changed)
    assert (generator(L) - usual).abs().max() > 1e-4
    hook.remove()


def test_the_report_has_nine_residual_blocks_that_add_to_their_input():
    blocks = Generator(SMALL, None).bottleneck
    assert len(blocks) == 9 and all(isinstance(block, ResidualBlock) for block in blocks)
    x = torch.randn(2, 64, 5, 5)
    for parameter in blocks[0].parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(blocks[0](x), x)


# encoders by name


@pytest.mark.parametrize("name, weights", [("resnet18", None), ("tf_efficientnet_lite0", "imagenet"), (SMALL, None)])
@torch.no_grad()
def test_an_encoder_sees_lightness_as_a_gray_photo_repeated_and_normalized(name, weights, offline):
    """Its features are those that the timm network itself finds in the RGB photo."""
    encoder = Encoder(name, weights).eval()
    network = timm.create_model(name, features_only=True).eval()
    one, other = (encoder.body, network) if weights else (network, encoder.body)
    other.load_state_dict(one.state_dict())
    found = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(found[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    L = lightness(64, 96)
    wanted = network(((L + 1) / 2).repeat(1, 3, 1, 1).sub(mean) / std)
    for i, (ours, theirs) in enumerate(zip(encoder(L), wanted, strict=True)):
        assert ours.shape[1:] == (encoder.channels[i], 64 // 2 ** (i + 1), 96 // 2 ** (i + 1))
        assert theirs.std() > 1e-4 and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("test_vit", "1/"), ("coatnet_nano_cc_224", "one size"), ("resnet81", "timm"), ("timm/resnet18", "timm")]
    + [("hf-hub:timm/resnet18.a1_in1k", "timm"), ("local-dir:/tmp", "timm")],
)
def test_an_encoder_that_cannot_be_used_is_refused_by_name(name, reason, monkeypatch):
    if reason == "timm":
        monkeypatch.setattr("timm.create_model", lambda *args, **kwargs: pytest.fail("reads a stranger's file"))
    with pytest.raises(ValueError, match=f"{name}.*{reason}"):
        Encoder(name, "auto" if reason == "timm" else None)


@pytest.mark.parametrize("weights", ["imagenet", "auto"])
def test_torchvisions_file_is_loaded_into_a_resnet(offline, tmp_path, weights):
    values = torchvision.models.resnet18().state_dict().items()  # the file has no counters of batches
    state = {name: torch.rand(value.shape) for name, value in values if "num_batches" not in name}
    (folder := tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    torch.save(state, folder / FILE)
    loaded = Generator("resnet18", weights, res_blocks=1).encoder.body.state_dict()  # and no initialization comes after
    wanted = [name for name in state if not name.startswith("fc.")]
    assert len(wanted) == 100 and all(torch.equal(loaded[name], state[name]) for name in wanted)


FILES = [("resnet18", "torn"), ("resnet18", "malicious"), ("resnet18", "missing"), (SMALL, "missing")]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_without_weights_there_is_an_error_or_a_start_from_scratch(offline, tmp_path, name, file, capsys):
    (folder := tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    if file != "missing":
        torch.save(MaliciousPickle(tmp_path / "trace") if file == "malicious" else torch.rand(9_000), folder / FILE)
    if file == "torn":
        (folder / FILE).write_bytes((folder / FILE).read_bytes()[:10_000])
    with pytest.raises(RuntimeError, match="encoder_weights=None"):
        Encoder(name, "imagenet")
    weights = Encoder(name, "auto").body.state_dict()
    assert "from scratch" in capsys.readouterr().out and not (tmp_path / "trace").exists()
    assert next(w for w in weights.values() if w.ndim == 4).std().item() == pytest.approx(0.02, rel=0.1)


def test_a_frozen_encoder_keeps_its_statistics_and_passes_gradients_on():
    """Notebook 09's content loss compares its features, to teach the network that made the photo."""
    generator, L = Generator(SMALL, None, res_blocks=1, freeze_encoder=True).train(), lightness(64, 64).requires_grad_()
    before = {name: value.clone() for name, value in generator.encoder.state_dict().items()}
    generator(L).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in generator.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in generator.encoder.parameters()) and L.grad.abs().sum() > 0
    assert generator.bottleneck[0].body[0].weight.grad.abs().sum() > 0 and generator.decoder.training


# initial weights


def test_convolutions_start_at_a_standard_deviation_of_002():
    generator = Generator(SMALL, None, res_blocks=2)
    found = [w for name, w in generator.named_parameters() if w.ndim == 4 and w.numel() > 2000 and "up." not in name]
    assert len(found) > 15 and [w.std().item() for w in found] == pytest.approx([0.02] * len(found), rel=0.1)
    assert not generator.head.bias.any()


@torch.no_grad()
def test_a_transposed_convolution_starts_as_bilinear_interpolation_of_a_mix_of_channels():
    up, x = UpBlock(16, 0, 8).apply(init_weights).up, torch.randn(1, 16, 9, 7)
    mix = up.weight[:, :, 1, 1] / 0.75**2  # from each input channel to each output channel
    wanted = F.interpolate(torch.einsum("nchw,cd->ndhw", x, mix), scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(up(x)[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-5)
    assert mix.std().item() == pytest.approx(16**-0.5, rel=0.2)


def test_the_binomial_filter_is_open_cvs_and_takes_away_what_alternates_in_the_colors(generator):
    x, board = torch.randn(1, 2, 9, 7), torch.eye(2).repeat(32, 32).expand(1, 2, 64, 64) * 2 - 1
    wanted = cv2.GaussianBlur(x[0].permute(1, 2, 0).numpy(), (3, 3), 0, borderType=cv2.BORDER_REPLICATE)  # 1, 2, 1
    assert torch.allclose(binomial()(x)[0].permute(1, 2, 0), torch.from_numpy(wanted), atol=1e-6)
    hook = generator.head.register_forward_hook(lambda module, inputs, output: board)
    assert generator(lightness(64, 64))[..., 1:-1, 1:-1].abs().max() == 0
    hook.remove()


# hints


@pytest.fixture
def hinted():
    """A generator that takes hints."""
    return Generator(SMALL, None, res_blocks=1, hints=True).eval()


@torch.no_grad()
def test_empty_hints_are_no_hints_and_a_hinted_pixel_gets_exactly_its_color(hinted, generator):
    L, hints = lightness(50, 64), torch.zeros(1, 3, 50, 64)
    assert torch.allclose(hinted(L, hints), hinted(L), atol=1e-6)
    hints[:, :, 10:14, 20:26] = torch.tensor([0.3, -0.2, 1]).view(3, 1, 1)
    ab = hinted(L, hints)
    assert torch.equal(ab[0, :, 10:14, 20:26], hints[0, :2, 10:14, 20:26])
    assert (ab - hinted(L))[..., 20:, :].abs().max() > 1e-4
    with pytest.raises(ValueError, match="hints"):
        generator(L, hints)  # has no layers for them


def test_the_first_gradient_reaches_all_hint_layers():
    generator = Generator(SMALL, None, res_blocks=1, hints=True).train()
    hints = torch.rand(2, 3, 64, 64)
    hints[..., :32] = 0  # hinted pixels copy their color, so they have no gradient
    generator(lightness(64, 64).expand(2, -1, -1, -1), hints).sum().backward()
    assert all(layer.grad.abs().max() > 0 for layer in generator.hint_attention.parameters())
