import pytest
import torch

from layerscope.stats import products


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (33, 1, 5), (50, 12, 1), (2049, 65, 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposes", [True, False])
def test_they_are_the_products(monkeypatch, shape, dtype, transposes):
    monkeypatch.setattr(products, "TRANSPOSES", transposes)
    m, d, c = shape
    draw = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(m, d, generator=draw), torch.randn(c, d, generator=draw)
    offsets, residuals = torch.randn(c, generator=draw), torch.randn(m, c, generator=draw)
    wide = rows.double(), weights.double(), offsets.double(), residuals.double()
    found = products.logits(rows.to(dtype), weights.to(dtype), offsets.to(dtype))
    assert found.is_contiguous()
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wide[0] @ wide[1].T + wide[2], rtol=1e-5, atol=1e-4)
    found = products.correlation(rows.to(dtype), residuals.to(dtype))
    torch.testing.assert_close(found.double(), wide[3].T @ wide[0], rtol=1e-5, atol=1e-3)


def test_part_of_a_matrix_is_read_as_it_lies():
    rows = torch.arange(60.0).view(20, 3)
    weights, offsets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]), torch.zeros(2)
    found = products.logits(rows[5:9], weights, offsets)
    assert found.tolist() == [[3.0 * row, -1.0] for row in range(5, 9)]


def test_float32_is_not_shortened():
    draw = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(512, 256, generator=draw), torch.randn(40, 256, generator=draw)
    exact = rows.double() @ weights.double().T
    found = products.logits(rows, weights, torch.zeros(40))
    assert float((found - exact).norm() / exact.norm()) < 1e-6
