"""Images as a column."""

from __future__ import annotations

import numpy as np
import torch

from engine.checks.suite import check_encoder
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.pixels import Pixels

IMAGES = Features((Pixels("image", side=2),))


def test_an_image_is_stored_row_by_row_and_reaches_the_network_as_it_is() -> None:
    image = [[0.0, 0.25], [0.5, 1.0]]
    encoded = IMAGES.encode([{"image": image}, {"image": np.array(image)}])
    assert not encoded.faults
    assert encoded.x.tolist() == [[0, 0.25, 0.5, 1]] * 2
    assert torch.equal(IMAGES.front_end()(torch.from_numpy(encoded.x)), torch.from_numpy(encoded.x))


def test_what_is_no_image_is_a_fault_that_says_what_was_expected() -> None:
    wrong = [None, "text", [1.0], [[0, 0], [0, 2]], [[0, 0], [0, float("nan")]], [[0, 0], [0]], 10**400]
    encoded = IMAGES.encode([{"image": value} for value in wrong])
    assert set(encoded.faults) == set(range(len(wrong)))
    assert encoded.faults[0] == "field 'image': expected 1 x 2 x 2 numbers from 0 to 1"
    assert not encoded.x.any()


def test_images_stand_beside_other_columns() -> None:
    both = Features((Numeric("a"), Pixels("image", side=2)))
    encoded = both.encode([{"a": 3, "image": [0, 0, 0, 1]}])
    assert both.front_end()(torch.from_numpy(encoded.x)).tolist() == [[3, 0, 0, 0, 1]]


def test_the_encoder_keeps_what_every_encoder_keeps() -> None:
    check_encoder(IMAGES)
