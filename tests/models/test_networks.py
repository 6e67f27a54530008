"""The shapes, the initial weights and the receptive fields of the two networks."""

import time
from urllib.error import URLError

import cv2
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from helpers.models.blocks import ResidualBlock, UpBlock, binomial, init_weights
from helpers.models.discriminator import Discriminator
from helpers.models.generator import IMAGENET_MEAN, IMAGENET_STD, Encoder, Generator, fold_conv1

SIZES = [(33, 33), (33, 97), (97, 33), (64, 64), (65, 50), (255, 255), (256, 64), (101, 130)]


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(weights=None, res_blocks=1).eval()


@pytest.fixture(scope="module")
def discriminator():
    torch.manual_seed(0)
    return Discriminator().eval()


@pytest.fixture
def resnet18_file(tmp_path, monkeypatch):
    """A file of weights where torchvision looks for its pretrained ResNet-18, with values of our own."""
    state = torchvision.models.resnet18(weights=None).state_dict()
    state = {name: torch.rand_like(t) - 0.5 if t.ndim == 4 else t for name, t in state.items()}
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    return state


def imagenet_normalized(gray):
    """A gray photo (N, 1, H, W) in [0, 1] as torchvision's ResNet wants it: three channels, ImageNet's mean and std."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (gray.repeat(1, 3, 1, 1) - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def largest_singular_value(conv):
    """The spectral norm of a convolution's weight: the root of the largest eigenvalue of W times W transposed."""
    matrix = conv.weight.flatten(1)
    return torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt().item()


@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.no_grad()
def test_generator_returns_ab_of_the_size_it_was_given(generator, height, width):
    ab = generator(torch.rand(1, 1, height, width) * 2 - 1)
    assert ab.shape == (1, 2, height, width)


@torch.no_grad()
def test_generator_output_never_leaves_its_range():
    generator = Generator(weights=None, res_blocks=1)
    generator.head.weight.mul_(1e4)
    ab = generator(torch.rand(2, 1, 64, 64) * 2 - 1)
    assert ab.abs().max() <= 1
    assert ab.abs().max() > 0.99 and ab.std() > 0.1


def test_generator_has_nine_residual_blocks_unless_told_otherwise():
    def blocks(generator):
        return sum(isinstance(module, ResidualBlock) for module in generator.bottleneck)

    assert blocks(Generator(weights=None)) == 9
    assert blocks(Generator(weights=None, res_blocks=2)) == 2


def test_residual_block_adds_to_its_input():
    block = ResidualBlock(8)
    x = torch.randn(2, 8, 5, 5)
    for layer in block.body:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    assert torch.equal(block(x), x)


def test_every_skip_of_the_u_net_is_used(generator):
    skips, encoder = [], generator.encoder
    hooks = [
        module.register_forward_hook(lambda m, i, out: (out.retain_grad(), skips.append(out))[0])
        for module in (encoder.bn1, encoder.layer1, encoder.layer2, encoder.layer3)
    ]
    deep = encoder.layer4.register_forward_hook(lambda m, i, out: out.detach())  # only the skips remain
    generator(torch.rand(1, 1, 64, 64)).square().sum().backward()
    for hook in (*hooks, deep):
        hook.remove()
    generator.zero_grad(set_to_none=True)
    assert len(skips) == 4 and all(out.grad is not None and out.grad.abs().sum() > 0 for out in skips)


@torch.no_grad()
def test_padding_does_not_disturb_the_photo(generator):
    """A photo that needs no padding and the same photo continued at its edge by hand are colorized alike."""
    L = torch.rand(1, 1, 50, 60) * 2 - 1
    padded = F.pad(L, (0, 4, 0, 14), mode="replicate")
    assert torch.allclose(generator(L), generator(padded)[..., :50, :60], atol=1e-6)


@torch.no_grad()
def test_pretrained_weights_of_the_deep_layers_are_those_of_the_file(resnet18_file):
    encoder = Encoder("resnet18", "IMAGENET1K_V1").state_dict()
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        names = [name for name in resnet18_file if name.startswith(layer)]
        assert len(names) > 10
        for name in names:
            assert torch.equal(encoder[name], resnet18_file[name]), name


@torch.no_grad()
def test_pretrained_weights_survive_the_initialization_of_the_generator(resnet18_file):
    generator = Generator("resnet18", "IMAGENET1K_V1", res_blocks=1)
    name = "layer4.1.conv2.weight"
    assert torch.equal(generator.encoder.state_dict()[name], resnet18_file[name])
    assert generator.bottleneck[0].body[0].weight.std().item() == pytest.approx(0.02, rel=0.02)


@torch.no_grad()
def test_conv1_of_the_encoder_is_the_files_folded_by_hand(resnet18_file):
    conv1 = Encoder("resnet18", "IMAGENET1K_V1").conv1
    red, green, blue = resnet18_file["conv1.weight"].unbind(1)
    # its input is (x - 0.449) / 0.226, so x - mean is 0.226 * input + (0.449 - mean)
    weight = 0.226 * (red / 0.229 + green / 0.224 + blue / 0.225)
    shift = red * (0.449 - 0.485) / 0.229 + green * (0.449 - 0.456) / 0.224 + blue * (0.449 - 0.406) / 0.225
    assert torch.allclose(conv1.weight[:, 0], weight, atol=1e-5)
    assert torch.allclose(conv1.bias, shift.sum((1, 2)), atol=1e-5)


@torch.no_grad()
def test_pretrained_encoder_sees_lightness_as_the_resnet_sees_a_gray_photo(resnet18_file):
    """The whole way from L in [-1, 1] to the first features, without assuming how the encoder feeds conv1."""
    encoder = Encoder("resnet18", "IMAGENET1K_V1").eval()
    gray = torch.rand(1, 1, 64, 64)
    ours = encoder(gray * 2 - 1)[0]
    theirs = F.relu(
        encoder.bn1(F.conv2d(imagenet_normalized(gray), resnet18_file["conv1.weight"], stride=2, padding=3))
    )
    assert theirs.std() > 0.1
    assert torch.allclose(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], atol=1e-4)


@torch.no_grad()
def test_folded_convolution_equals_the_rgb_one_for_gray_photos():
    conv = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    gray = torch.rand(2, 1, 64, 64)
    theirs = conv(imagenet_normalized(gray))
    difference = (fold_conv1(conv)((gray - 0.449) / 0.226) - theirs).abs()
    assert difference[..., 2:-2, 2:-2].max() < 1e-4
    # At the border, padding with 0 means a photo continued in ImageNet's mean color for one, in its mean gray for the
    # other. These lie at most 0.191 standard deviations apart, and no output can differ by more than that times its
    # weights.
    apart = max(abs(0.449 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
    assert (difference <= apart * conv.weight.abs().sum((1, 2, 3)).view(1, -1, 1, 1) + 1e-5).all()
    assert difference.mean() < 0.02 * theirs.std()


@pytest.mark.parametrize(("name", "convolutions"), [("resnet18", 20), ("resnet34", 36)])
@torch.no_grad()
def test_encoders_give_five_feature_maps(name, convolutions):
    encoder = Encoder(name, None)
    maps = encoder(torch.zeros(2, 1, 96, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 48, 32), (64, 24, 16), (128, 12, 8), (256, 6, 4), (512, 3, 2)]
    assert sum(isinstance(module, nn.Conv2d) for module in encoder.modules()) == convolutions


@torch.no_grad()
def test_generator_on_resnet34_works():
    assert Generator("resnet34", None, res_blocks=1)(torch.zeros(2, 1, 64, 40)).shape == (2, 2, 64, 40)


@pytest.mark.parametrize("network", [lambda: Generator(weights=None, res_blocks=1), Discriminator], ids=["G", "D"])
@torch.no_grad()
def test_convolutions_that_are_not_pretrained_start_at_standard_deviation_0_02(network):
    module, looked_at = network(), 0
    for name, weight in module.named_parameters():
        if weight.ndim == 4 and "encoder.conv1" not in name and not name.endswith("up.weight"):  # conv1 is folded
            assert weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(weight.mean().item()) < 0.002, name
            looked_at += 1
        if name.endswith(("head.bias", "12.bias")):
            assert (weight == 0).all()
    assert looked_at >= 5


def test_auto_takes_trained_weights_where_there_are_some(resnet18_file, monkeypatch, capsys):
    monkeypatch.setattr("helpers.models.blocks.urlopen", lambda *args, **more: pytest.fail("no need to ask"))
    name, encoder = "layer1.0.conv1.weight", Encoder("resnet18", "auto")
    assert torch.equal(encoder.state_dict()[name], resnet18_file[name])
    assert "resnet18   trained on ImageNet" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_auto_does_not_wait_long_for_a_network_and_says_that_it_starts_from_scratch(offline, monkeypatch, capsys, how):
    def ask(*args, **more):
        if how == "refused":
            raise URLError("no network")
        time.sleep(30)  # a name server that never answers
        raise URLError("too late")

    monkeypatch.setattr("helpers.models.blocks.urlopen", ask)
    start = time.perf_counter()
    Encoder("resnet18", "auto")
    assert time.perf_counter() - start < 7
    assert "from scratch: no trained weights (no answer" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_without_network_the_encoder_says_what_to_do(offline, name):
    with pytest.raises(RuntimeError, match="encoder_weights=None"):
        Encoder(name, "IMAGENET1K_V1")


@pytest.mark.parametrize("size", [255, 256])
@torch.no_grad()
def test_discriminator_scores_30_by_30_patches(discriminator, size):
    assert discriminator(torch.zeros(1, 1, size, size), torch.zeros(1, 2, size, size)).shape == (1, 1, 30, 30)


def test_each_patch_of_the_discriminator_sees_exactly_70_by_70_pixels(discriminator):
    L, ab = torch.randn(1, 1, 256, 256, requires_grad=True), torch.randn(1, 2, 256, 256, requires_grad=True)
    discriminator(L, ab)[0, 0, 15, 15].backward()
    for gradient in (L.grad, ab.grad):
        seen = gradient[0].abs().amax(0) > 0
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        assert rows[-1] - rows[0] + 1 == 70 and columns[-1] - columns[0] + 1 == 70
        assert seen.sum() == 70 * 70


def test_discriminator_has_four_layers_with_norm_and_leaky_relu_and_an_output(discriminator):
    kinds = [type(layer).__name__.removeprefix("Parametrized") for layer in discriminator.layers]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 4 + ["Conv2d"]


@torch.no_grad()
def test_every_convolution_of_the_discriminator_is_spectrally_normalized():
    discriminator = Discriminator().train()
    for _ in range(20):  # each pass takes one step of the power iteration
        discriminator(torch.randn(2, 1, 32, 32), torch.randn(2, 2, 32, 32))
    discriminator.eval()
    convolutions = [module for module in discriminator.modules() if isinstance(module, nn.Conv2d)]
    largest = [largest_singular_value(conv) for conv in convolutions]
    assert len(largest) == 5
    assert largest == pytest.approx([1.0] * 5, abs=0.05)


def test_normalization_holds_whatever_the_size_of_the_weights():
    discriminator = Discriminator().train()
    with torch.no_grad():
        discriminator.layers[0].parametrizations.weight.original.mul_(1000)
        for _ in range(5):
            discriminator(torch.randn(2, 1, 32, 32), torch.randn(2, 2, 32, 32))
    assert largest_singular_value(discriminator.layers[0]) == pytest.approx(1, abs=0.05)


@torch.no_grad()
def test_a_transposed_convolution_starts_as_bilinear_interpolation_of_a_mix_of_channels():
    up = UpBlock(16, 0, 8).apply(init_weights).up
    x = torch.randn(1, 16, 9, 7)
    mix = up.weight[:, :, 1, 1] / 0.75**2  # from each input channel to each output channel
    mixed = torch.einsum("nchw,cd->ndhw", x, mix)
    wanted = F.interpolate(mixed, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(up(x)[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-5)
    assert mix.std().item() == pytest.approx(16**-0.5, rel=0.2)


@torch.no_grad()
def test_an_untrained_generator_draws_no_checkerboard(generator):
    """What alternates from pixel to pixel is little beside what changes over some pixels, on a smooth photo."""
    L = F.interpolate(torch.rand(1, 1, 4, 4) * 2 - 1, (128, 128), mode="bicubic")
    ab = generator(L)[..., 16:-16, 16:-16]
    alternating = (ab.diff(n=2, dim=-1).abs() / 4).mean()
    assert alternating < 0.1 * (ab[..., 8:] - ab[..., :-8]).abs().mean()


def test_the_binomial_filter_is_open_cvs_and_takes_away_what_alternates():
    x = torch.randn(1, 2, 9, 7)
    wanted = cv2.GaussianBlur(x[0].permute(1, 2, 0).numpy(), (3, 3), 0, borderType=cv2.BORDER_REPLICATE)  # 1, 2, 1
    assert torch.allclose(binomial()(x)[0].permute(1, 2, 0), torch.from_numpy(wanted), atol=1e-6)
    rows, columns = torch.arange(9)[:, None], torch.arange(7)
    alternating = (1.0 - 2 * ((rows + columns) % 2))[None]
    assert binomial()(alternating)[..., 1:-1, 1:-1].abs().max() == 0
