"""LivePortrait's warp, generator and renderer against the released ones, and their properties."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from math import log10

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from by_rule import GOLDEN, state_by_rule
from liveportrait_by_rule import by_rule, released_shapes, retargeting_file
from moda_cli.device import has_bf16
from moda_cli.errors import WeightsError
from moda_cli.face.extractors import AppearanceExtractor
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, Source, encode_gaze
from moda_cli.render.liveportrait.keypoints import Retargeting, drive_absolute, source_keypoints
from moda_cli.render.liveportrait.networks import Networks, to_pixels
from moda_cli.render.liveportrait.renderer import LivePortrait
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import (
    WarpingNetwork,
    gaussians,
    identity_grid,
    sample_volume,
)
from moda_cli.weights.renames.liveportrait import (
    RETARGETING,
    fold_spectral_norms,
    liveportrait_state,
)
from moda_cli.weights.state import load_strict


def close(actual: Tensor, expected: Tensor, name: str = "", atol: float = 1e-4) -> None:
    torch.testing.assert_close(
        actual, expected, atol=atol, rtol=0, msg=lambda text: f"{name}: {text}"
    )


def watch(seen: dict[str, Tensor], modules: dict[str, nn.Module], into: bool = False) -> None:
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _m, given, out, name=name: seen.update({name: given[0] if into else out})
        )


def small_warping(num_keypoints: int) -> WarpingNetwork:
    return by_rule(WarpingNetwork(num_keypoints, 4, 8, 16, 2, 4, 16, 3))


def small_generator(upscale: int = 2) -> SpadeGenerator:
    return by_rule(SpadeGenerator(in_channels=16, width=32, out_channels=8, upscale=upscale))


def test_small_warping_network_step_by_step() -> None:
    golden = load_file(GOLDEN / "lp_small_W.safetensors")
    network = small_warping(num_keypoints=5)
    dense = network.dense_motion
    seen: dict[str, Tensor] = {}
    watch(seen, {"hourglass_in": dense.hourglass, "third_in": network.third}, into=True)
    watch(seen, {"hourglass_out": dense.hourglass, "mask_logits": dense.mask})
    watch(seen, {"third": network.third})
    with torch.inference_mode():
        source = network.prepare(golden["feature_3d"], golden["kp_source"])
        seen["deformation"], seen["occlusion_map"] = dense(source, golden["kp_driving"])
        seen["out"] = network(source, golden["kp_driving"])
    seen["third"] = F.leaky_relu(seen["third"], 0.01)
    assert len(seen) == 8
    for name, value in seen.items():
        close(value, golden[name], name)


@pytest.mark.parametrize("upscale", [1, 2])
def test_small_generator_step_by_step(upscale: int) -> None:
    prefix = f"G{upscale}."
    golden = {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(GOLDEN / "lp_small_G.safetensors").items()
        if name.startswith(prefix)
    }
    network = small_generator(upscale)
    if upscale == 1:  # the released unit-test variant names its last layer otherwise
        shapes = released_shapes(network)
        last = {part: shapes[f"conv_img.0.{part}"] for part in ("weight", "bias")}
        network.to_rgb.load_state_dict(state_by_rule(last, "conv_img."))
    seen: dict[str, Tensor] = {}
    first = network.middle[0]
    watch(seen, {"fc": network.fc, "G_middle_0": first, "G_middle_0.norm_0": first.norm_0})
    watch(seen, {"G_middle_5": network.middle[5], "up_0": network.up[0], "up_1": network.up[1]})
    watch(seen, {"conv_img": network.to_rgb})
    with torch.inference_mode():
        seen["out"] = network(golden["x"])
    seen["conv_img"] = F.pixel_shuffle(seen["conv_img"], upscale)
    seen["up_0.conv_s.weight_folded"] = network.up[0].conv_s.weight.detach()
    for name, value in seen.items():
        close(value, golden[name], name)


def test_spectral_norm_needs_its_three_tensors() -> None:
    whole = {"c.weight_orig": torch.eye(3)[:, :, None, None], "c.weight_u": torch.eye(3)[0]}
    with pytest.raises(WeightsError, match=r"missing c\.weight_v"):
        fold_spectral_norms(whole)
    with pytest.raises(WeightsError, match="do not fit"):
        fold_spectral_norms({**whole, "c.weight_v": torch.zeros(4)})
    folded = fold_spectral_norms({**whole, "c.weight_v": torch.eye(3)[0] * 4})
    assert torch.equal(folded["c.weight"], whole["c.weight_orig"] / 4)


def test_gaussians_and_grid_are_the_released_ones() -> None:
    golden = load_file(GOLDEN / "lp_pure.safetensors")
    close(gaussians(golden["gauss.kp"], (4, 8, 8)), golden["gauss.out"], atol=1e-6)
    close(identity_grid((4, 8, 6), torch.device("cpu")), golden["grid.out_4x8x6"], atol=1e-6)


def test_identity_grid_shrinks_the_content_as_the_networks_were_trained() -> None:
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 4, 6, 8)
    grid = identity_grid((4, 6, 8), torch.device("cpu"))[None]
    inner = sample_volume(ramp, grid)[0, 0, 1, 3, 1:-1]
    close(inner, ramp[0, 0, 0, 0, 1:-1] * 8 / 7)


def test_pixels_are_truncated() -> None:
    golden = load_file(GOLDEN / "lp_pure.safetensors")
    assert torch.equal(to_pixels(golden["parse.in"]), golden["parse.out"])


def retargeting() -> Retargeting:
    with torch.device("meta"):
        networks = Retargeting()
    load_strict(networks, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    return networks


@pytest.fixture(scope="module")
def small() -> Networks:
    return Networks(retargeting(), small_warping(21), small_generator())


@pytest.fixture(scope="module")
def portrait() -> tuple[Source, Tensor, Tensor]:
    """A source, its feature volume, and motion (7, 70) around it."""
    rng = torch.Generator().manual_seed(3)
    motion = torch.randn(7, 70, generator=rng) * torch.tensor([0.02] * 67 + [8.0] * 3)
    motion[:, 63] += 1.3
    source = Source(motion[0], torch.rand(21, 3, generator=rng) - 0.5)
    return source, torch.randn(1, 4, 8, 16, 16, generator=rng), motion


def as_is(picture: Picture) -> Picture:
    return picture


def rendered(
    networks: Networks, portrait: tuple[Source, Tensor, Tensor], **options: object
) -> NDArray[np.uint8]:
    source, volume, motion = portrait
    renderer = LivePortrait(networks, source, volume, as_is, **options)  # type: ignore[arg-type]
    return np.stack(list(renderer.render(motion)))


def test_frames_are_the_networks_in_the_released_order(
    small: Networks, portrait: tuple[Source, Tensor, Tensor]
) -> None:
    source, volume, motion = portrait
    frames = rendered(small, portrait)
    assert frames.shape == (7, 128, 128, 3)
    assert frames.dtype == np.uint8
    kp_source = source_keypoints(source)[None]
    with torch.inference_mode():
        for row, frame in zip(motion, frames, strict=True):
            kp = small.retargeting.stitch(kp_source, drive_absolute(source, row[None]))
            prepared = small.warping.prepare(volume, kp_source)
            image = small.generator(small.warping(prepared, kp))
            expected = to_pixels(image)[0].numpy().astype(int)
            assert np.abs(expected - frame).max() <= 1
    assert np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 1  # they differ


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_frame_depends_on_its_row_alone(
    small: Networks, portrait: tuple[Source, Tensor, Tensor], batch_size: int
) -> None:
    frames = rendered(small, portrait, batch_size=batch_size).astype(int)
    assert np.abs(frames - rendered(small, portrait, batch_size=2)).max() <= 1


def test_frames_are_pasted_as_they_come(
    small: Networks, portrait: tuple[Source, Tensor, Tensor]
) -> None:
    source, volume, motion = portrait
    seen: list[Picture] = []

    def paste(picture: Picture) -> Picture:
        seen.append(picture)
        return picture[:2]

    frames: Iterator[Picture] = LivePortrait(small, source, volume, paste).render(motion)
    assert next(frames).shape == (2, 128, 3)
    assert len(seen) == 1


def test_a_gaze_is_the_motion_of_the_eyes_keypoints(
    small: Networks, portrait: tuple[Source, Tensor, Tensor]
) -> None:
    source, volume, motion = portrait
    renderer = LivePortrait(small, source, volume, as_is)
    gaze = torch.linspace(-1, 1, 14).reshape(7, 2)
    looked = np.stack(list(renderer.render(motion, gaze)))
    moved = motion.clone()
    moved[:, EXPRESSION] += encode_gaze(gaze)
    np.testing.assert_array_equal(looked, np.stack(list(renderer.render(moved))))
    assert (looked != rendered(small, portrait)).any()


def test_relative_motion_starts_at_the_portrait(
    small: Networks, portrait: tuple[Source, Tensor, Tensor]
) -> None:
    source, volume, motion = portrait
    still = motion[2:3].expand(2, 70)
    frames = rendered(small, (source, volume, still), neutral=motion[2])
    own = rendered(small, (source, volume, source.motion[None]), neutral=source.motion)
    assert np.abs(frames.astype(int) - own).max() <= 1
    assert np.abs(rendered(small, portrait, neutral=motion[2]).astype(int) - own).max() > 1


def psnr(frames: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    return 10 * log10(255**2 / np.square(frames.astype(float) - reference).mean())


def test_bfloat16_stays_close(small: Networks, portrait: tuple[Source, Tensor, Tensor]) -> None:
    source, volume, motion = portrait
    some = source, volume, motion[:2]  # emulated, a frame takes seconds
    frames = rendered(replace(small, dtype=torch.bfloat16), some)
    exact = rendered(small, some)
    assert (frames != exact).any()
    assert psnr(frames, exact) >= 35


def test_coordinates_stay_float32(small: Networks, portrait: tuple[Source, Tensor, Tensor]) -> None:
    source, volume, motion = portrait
    kp = drive_absolute(source, motion[:1])
    with torch.inference_mode(), replace(small, dtype=torch.bfloat16).autocast():
        prepared = small.warping.prepare(volume, source_keypoints(source)[None])
        deformation, _ = small.warping.dense_motion(prepared, kp)
    assert {t.dtype for t in (deformation, prepared.heatmaps, prepared.compressed)} == {
        torch.float32
    }


@dataclass(frozen=True)
class Full:
    """The released networks by rule, full size, and what the release makes of them."""

    appearance: AppearanceExtractor
    networks: Networks
    golden: dict[str, Tensor]

    @torch.inference_mode()
    def picture(self, dtype: torch.dtype) -> Tensor:
        networks = replace(self.networks, dtype=dtype)
        given = {name: tensor.to(networks.device) for name, tensor in self.golden.items()}
        with networks.autocast():
            volume = self.appearance(given["image_uint8"].permute(2, 0, 1)[None] / 255).float()
            source = networks.warping.prepare(volume, given["kp_source"])
        return networks.picture(source, given["kp_driving"]).cpu()

    def psnr(self, image: Tensor) -> float:
        return psnr(self.rows(image).numpy(), self.golden["image_uint8_out"].numpy())

    def rows(self, image: Tensor) -> Tensor:
        """Those rows of an image's pixels that the golden has: it may be cut."""
        pixels = to_pixels(image)
        return pixels[:, :: pixels.shape[1] // self.golden["image_uint8_out"].shape[1]]

    def changed(self, change: Callable[[nn.Module], nn.Module]) -> "Full":
        """The same with a changed copy of every network."""
        networks = self.networks
        parts = (self.appearance, networks.retargeting, networks.warping, networks.generator)
        appearance, *rest = (change(deepcopy(part)) for part in parts)
        return Full(appearance, Networks(*rest), self.golden)


@pytest.fixture(scope="module")
def full() -> Full:
    with torch.device("meta"):
        appearance, warping = AppearanceExtractor(), WarpingNetwork()
        generator = SpadeGenerator()
    networks = Networks(retargeting(), by_rule(warping), by_rule(generator))
    return Full(by_rule(appearance), networks, load_file(GOLDEN / "lp_full_WG.safetensors"))


@pytest.mark.slow
def test_full_networks_give_the_released_numbers(full: Full) -> None:
    warping, golden = full.networks.warping, full.golden
    seen: dict[str, Tensor] = {}
    hooks = [
        warping.dense_motion.register_forward_hook(
            lambda _m, _i, out: seen.update(deformation=out[0], occlusion=out[1])
        ),
        warping.register_forward_hook(lambda _m, _i, out: seen.update(warped=out)),
    ]
    image = full.picture(torch.float32)
    for hook in hooks:
        hook.remove()
    close(seen["deformation"][:, ::2, ::4, ::4], golden["deformation_sub"])
    close(seen["occlusion"], golden["occlusion_map"])
    close(seen["warped"][:, :, ::4, ::4], golden["warped_sub"])
    close(image[:, :, ::3, ::3], golden["image_sub"], atol=5e-4)
    close(image.mean(dim=(2, 3)), golden["image_ch_mean"])
    difference = (full.rows(image).int() - golden["image_uint8_out"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="emulated, it takes minutes")
def test_full_frame_in_bfloat16(full: Full) -> None:
    assert full.psnr(full.picture(torch.bfloat16)) >= 35


def halve(network: nn.Module) -> nn.Module:
    """Convolutions that read and write float16 values but add in float32."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = module.weight.data.half().float()
            module.register_forward_pre_hook(lambda _m, given: given[0].half().float())
            module.register_forward_hook(lambda _m, _i, out: out.half().float())
    return network


@pytest.mark.slow
def test_full_frame_in_float16_as_a_gpu_would(full: Full) -> None:
    image = full.changed(halve).picture(torch.float32)  # the CPU's own float16 takes minutes
    assert full.psnr(image) >= 50


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 60), (torch.float16, 50), (torch.bfloat16, 35)]
)
def test_full_frame_on_a_gpu(full: Full, dtype: torch.dtype, least: float) -> None:
    assert full.psnr(full.changed(lambda part: part.to("cuda")).picture(dtype)) >= least
