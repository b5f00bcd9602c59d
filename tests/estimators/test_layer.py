import numpy as np
import torch

from layerscope.estimators.layer import rarely_vary


def relu_active_in(rows, active):
    feature = torch.zeros(rows)
    feature[:active] = 1 + torch.rand(active)
    return feature


def test_a_unit_that_fired_for_a_few_images_is_rare_and_others_are_not():
    torch.manual_seed(0)
    columns = [torch.randn(1000), *(relu_active_in(1000, active) for active in (1, 5, 50, 500))]
    rows = torch.stack(columns, dim=1)
    assert rarely_vary(rows).tolist() == [False, True, True, False, False]


def test_scale_and_offset_change_nothing_and_a_constant_is_no_concern():
    torch.manual_seed(0)
    rows = torch.stack([torch.randn(200), relu_active_in(200, 2), torch.full((200,), 3.0)], dim=1)
    moved = rows * torch.tensor([1e-6, 1e5, 2.0]) - 7e-6
    assert rarely_vary(rows).tolist() == rarely_vary(moved).tolist() == [False, True, False]


def test_with_few_rows_nothing_but_a_lone_row_is_rare():
    generator = np.random.default_rng(0)
    rows = torch.from_numpy(generator.normal(size=(24, 6)))
    rows[:, 5] = 0
    rows[3, 5] = 1.0
    assert rarely_vary(rows).tolist() == [False] * 5 + [True]
