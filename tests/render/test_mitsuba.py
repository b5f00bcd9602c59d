import builtins
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import RenderError
from layerscope.render import RenderSettings, render_dataset
from layerscope.render.backends.mitsuba import MitsubaRenderer, _sun_rays
from layerscope.render.latents import Latents
from layerscope.render.mesh import corners
from layerscope.render.parts import box
from layerscope.render.scene import Scene

SMALL = RenderSettings(objects=3, views=2, size=24, samples=4)
PLAIN = Latents(0.0, 0.0, 0.0, floor_hue=0.6, spot_theta=0.3, spot_phi=1.0, spot_hue=0.0)


@pytest.fixture(scope="module")
def renderer() -> MitsubaRenderer:
    pytest.importorskip("mitsuba")
    return MitsubaRenderer()


def picture(renderer: MitsubaRenderer, **changes: float) -> np.ndarray:
    scene = Scene("box", corners(box((0.8, 0.8, 0.8))), (0.6, 0.6, 0.6), replace(PLAIN, **changes))
    return renderer.render(scene, 48, 4, seed=1).astype(float)


def test_pixels_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    pytest.importorskip("mitsuba")
    one, two = (
        {str(file.relative_to(out)): file.read_bytes() for file in (out / "images").rglob("*.jpg")}
        for out in (
            render_dataset(tmp_path / "one", SMALL, workers=1),
            render_dataset(tmp_path / "two", SMALL, workers=2),
        )
    )
    assert len(one) == 6
    assert one == two


def test_images_are_well_exposed(renderer: MitsubaRenderer):
    image = picture(renderer)
    assert image.shape == (48, 48, 3)
    assert 60 < image.mean() < 190
    assert (image >= 254).all(axis=2).mean() < 0.01
    assert (image <= 5).all(axis=2).mean() < 0.01


def test_the_spot_is_seen_in_its_colour(renderer: MitsubaRenderer):
    red, green = picture(renderer, spot_hue=0.0), picture(renderer, spot_hue=1 / 3)
    assert (red - green)[..., 0].max() > 40
    assert (green - red)[..., 1].max() > 40
    assert np.abs(red - green)[..., 2].max() < 2


def test_the_floor_has_its_colour_and_no_grain(renderer: MitsubaRenderer):
    corner = picture(renderer, floor_hue=1 / 3)[:4, :4]
    assert corner[..., 1].mean() > corner[..., 0].mean() + 40
    assert corner.std(axis=(0, 1)).max() < 2


def test_the_object_casts_a_shadow_from_the_spot(renderer: MitsubaRenderer):
    high, low = picture(renderer, spot_theta=0.0), picture(renderer, spot_theta=0.7, spot_phi=1.57)
    # Seen from above, the lit square leaves a dark one in the red disc; from the side it moves.
    assert np.abs(high - low).max(axis=2).mean() > 5


def test_every_latent_changes_the_image(renderer: MitsubaRenderer):
    changes = {"yaw": 0.3, "pitch": 0.3, "roll": 0.3, "floor_hue": 0.7}
    changes |= {"spot_theta": 0.5, "spot_phi": 2.0, "spot_hue": 0.2}
    for name, value in changes.items():
        assert np.abs(picture(renderer, **{name: value}) - picture(renderer)).max() > 20


def test_the_sun_gives_the_floor_its_strength():
    towards, strengths = _sun_rays(1.5)
    assert np.allclose(np.linalg.norm(towards, axis=1), 1)
    assert (towards[:, 2] * strengths).sum() == pytest.approx(1.5)
    assert towards[:, 2].min() > np.cos(np.pi / 4)


@pytest.mark.parametrize(
    ("error", "named", "hint"),
    [
        (ModuleNotFoundError("no", name="mitsuba"), "mitsuba", "layerscope[render]"),
        (
            ImportError("libatomic.so.1: cannot open shared object file"),
            "libatomic.so.1",
            "apt-get install libatomic1",
        ),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, named: str, hint: str
):
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name in ("mitsuba", "drjit"):
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RenderError, match=named) as caught:
        MitsubaRenderer().version()
    assert hint in caught.value.hint


def test_the_contact_sheet_shows_every_latent_and_category(tmp_path: Path):
    pytest.importorskip("mitsuba")
    from PIL import Image

    out = render_dataset(tmp_path, replace(SMALL, views=1), workers=1)
    with Image.open(out / "preview.png") as sheet:
        assert sheet.width > 8 * 24
        assert sheet.height > 8 * 24
    shutil.rmtree(out)
