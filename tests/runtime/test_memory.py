import os

from layerscope.runtime import memory as module


def test_it_is_the_machines_where_nothing_limits_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LIMITS", (tmp_path / "missing",))
    assert module.memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_containers_limit_counts_and_no_limit_does_not(monkeypatch, tmp_path):
    limited, free = tmp_path / "limited", tmp_path / "free"
    limited.write_text("1048576\n")
    free.write_text("max\n")
    monkeypatch.setattr(module, "LIMITS", (free, limited))
    assert module.memory() == 1 << 20
