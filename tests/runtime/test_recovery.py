"""Losing the GPU and going on, as often as the budget allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.runtime.bank import Bank
from patchline.runtime.engine.cuda.gpu import open_gpu
from patchline.runtime.engine.recovery import RecoveringEngine
from patchline.runtime.engine.tensorrt import TensorRTEngine
from patchline.runtime.errors import DeviceLostError, EngineError, FrameError, ModelError

from .fake_cuda import Fault, World, install
from .fake_tensorrt import make_flavour, write_plan
from .fakes import FakeClock, FakeEngine
from .tiny_model import SIZE, write_tiny_bank, write_tiny_graph

FRAMES = np.full((1, SIZE, SIZE, 3), 100, np.uint8)


@pytest.fixture
def bolt(tmp_path: Path) -> Path:
    return write_tiny_bank(tmp_path / "bolt.bank", 10.0)


class Losing(FakeEngine):
    """Loses its GPU at given calls, counted over all engines of one :class:`Shop`."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop, self.bank = shop, shop.first_bank

    def _lose(self) -> None:
        self.shop.calls += 1
        if self.shop.calls in self.shop.lost_at:
            raise DeviceLostError(f"lost at {self.shop.calls}")

    def infer(self, frames: Any) -> Any:
        self._lose()
        prediction = super().infer(frames)
        self.shop.judged_with.append(self.bank)
        return prediction

    def load_bank(self, bank: Path | Bank) -> None:
        assert isinstance(bank, Bank)  # a file could be another by the time it is read again
        self._lose()
        if bank.path in self.shop.refused:
            raise ModelError("refused")
        self.bank = bank.path

    def close(self) -> None:
        super().close()
        if self not in self.shop.closed:
            self.shop.closed.append(self)


class Shop:
    """Opens engines."""

    def __init__(self, *lost_at: int, opening: dict[int, Exception] | None = None) -> None:
        self.lost_at, self.opening = set(lost_at), opening or {}
        self.calls = 0
        self.first_bank: Path | None = None
        self.refused: set[Path] = set()
        self.opened: list[Losing] = []
        self.closed: list[Losing] = []
        self.judged_with: list[Path | None] = []
        self.tries = 0

    def open(self) -> Losing:
        self.tries += 1
        if self.tries in self.opening:
            raise self.opening[self.tries]
        # Never two at once: the old one holds the memory.
        assert len(self.closed) == len(self.opened)
        self.opened.append(Losing(self))
        return self.opened[-1]


def recovering(shop: Shop, clock: FakeClock | None = None, **options: Any) -> RecoveringEngine:
    return RecoveringEngine(shop.open, clock=clock or FakeClock(), **options)


def test_the_same_frame_is_judged_again() -> None:
    shop, told = Shop(2), []
    with recovering(shop, on_recovery=told.append) as engine:
        for _ in range(3):
            assert engine.infer(FRAMES).image_score[0] == 100
        assert engine.manifest.class_name == "lamp" and engine.description == "a fake"
    assert [str(error) for error in told] == ["lost at 2"]
    assert len(shop.opened) == len(shop.closed) == 2


def test_three_in_a_row_are_survived_and_the_fourth_goes_through() -> None:
    shop = Shop(2, 3, 4)
    with recovering(shop) as engine:
        engine.infer(FRAMES)
        assert engine.infer(FRAMES).image_score[0] == 100
    shop = Shop(2, 3, 4, 5)
    engine = recovering(shop)
    engine.infer(FRAMES)
    with pytest.raises(DeviceLostError, match="lost at 5"):
        engine.infer(FRAMES)
    assert len(shop.closed) == len(shop.opened) == 4
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(FRAMES)


def test_the_budget_comes_back_with_time() -> None:
    shop, clock = Shop(*range(1, 40, 2)), FakeClock()
    with recovering(shop, clock, attempts=2, within_s=60) as engine:
        for _ in range(10):
            engine.infer(FRAMES)
            clock.time_s += 31
        clock.time_s += 61
        engine.infer(FRAMES)
        engine.infer(FRAMES)
        with pytest.raises(DeviceLostError):
            engine.infer(FRAMES)


def test_a_loss_while_opening_again_counts() -> None:
    shop = Shop(1, opening={2: DeviceLostError("still"), 3: DeviceLostError("still")})
    with recovering(shop) as engine:
        assert engine.infer(FRAMES).image_score[0] == 100
    assert shop.tries == 4


def test_one_that_does_not_open_again_is_said() -> None:
    shop = Shop(1, opening={2: EngineError("no driver")})
    with recovering(shop) as engine:
        with pytest.raises(EngineError, match="no driver"):
            engine.infer(FRAMES)
        with pytest.raises(EngineError, match="closed"):
            engine.infer(FRAMES)


def test_the_last_bank_is_loaded_again(bolt: Path) -> None:
    shop = Shop(2, 4)
    with recovering(shop) as engine:
        engine.infer(FRAMES)
        engine.load_bank(bolt)  # lost, and loaded by the second engine
        bolt.write_bytes(b"half a file")  # which nobody asked to be read
        engine.infer(FRAMES)  # lost, and judged by the third
    assert shop.judged_with == [None, bolt]
    assert len(shop.opened) == 3


def test_a_bank_that_is_refused_is_not_kept(bolt: Path) -> None:
    shop, nut = Shop(3), write_tiny_bank(bolt.with_name("nut.bank"), 20.0)
    shop.refused = {nut}
    with recovering(shop) as engine:
        engine.load_bank(bolt)
        with pytest.raises(ModelError):
            engine.load_bank(nut)
        engine.infer(FRAMES)
    assert shop.judged_with == [bolt]


def test_no_frame_is_judged_with_the_first_bank_when_the_last_cannot_be_loaded(bolt: Path) -> None:
    shop = Shop(2)
    with recovering(shop) as engine:
        engine.load_bank(bolt)
        shop.refused = {bolt}
        with pytest.raises(ModelError):
            engine.infer(FRAMES)
        with pytest.raises(EngineError, match="closed"):
            engine.infer(FRAMES)
    assert shop.judged_with == []
    assert len(shop.closed) == len(shop.opened) == 2


def test_other_errors_are_not_survived() -> None:
    shop = Shop()
    with recovering(shop) as engine, pytest.raises(FrameError):
        engine.infer(FRAMES[0])
    assert len(shop.opened) == 1
    with pytest.raises(EngineError, match="closed"):
        engine.infer(FRAMES)


def test_with_tensorrt_on_a_gpu_that_breaks_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame gets its own score, whichever call of the first GPU is its last."""
    plan = write_plan(write_tiny_graph(tmp_path), rows=(32, 32, 96))
    banks = [write_tiny_bank(tmp_path / f"{v}.bank", float(v)) for v in (10, 60)]
    monkeypatch.setattr(
        "patchline.runtime.engine.cuda.gpu._reset_primary_context", lambda index: None
    )

    def run(fault: Fault | None) -> list[World]:
        worlds: list[World] = []

        def opened() -> TensorRTEngine:
            worlds.append(World(mood="lazy", fault=fault if not worlds else None))
            install(monkeypatch, worlds[-1])
            flavour, gpu = make_flavour(worlds[-1]), open_gpu(0)
            return TensorRTEngine(plan, flavour=flavour, gpu=gpu, bank=banks[0])

        with RecoveringEngine(opened, clock=FakeClock()) as engine:
            for bank, value in ((None, 10), (banks[1], 60)):
                if bank is not None:
                    engine.load_bank(bank)
                for _ in range(3):
                    assert engine.infer(FRAMES).image_score[0] == pytest.approx(100 - value)
                    opening.append(len(worlds[0].calls))
        for world in worlds:
            world.assert_clean(in_order=False)
        return worlds

    opening: list[int] = []
    probe = run(None)[0]
    for at in range(opening[0] + 1, len(probe.calls)):
        assert len(run(Fault(at, is_lost=True))) <= 2
    assert len(run(Fault(opening[0] + 3, is_lost=True))) == 2
