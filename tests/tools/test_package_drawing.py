"""The drawing of the packages: arrows that lead upward are found, implied ones are left out."""

from __future__ import annotations

from tools.package_drawing import find_imports, find_upward, load_layers, remove_implied

LAYERS = [["cli"], ["api"], ["store", "ledger"], ["errors"]]


def test_an_import_of_a_package_above_is_found() -> None:
    assert find_upward({"ledger": {"api"}, "api": {"ledger"}}, LAYERS) == [("ledger", "api")]


def test_an_import_within_a_layer_is_found() -> None:
    assert find_upward({"ledger": {"store"}}, LAYERS) == [("ledger", "store")]


def test_what_another_path_implies_is_not_drawn() -> None:
    imports = {"cli": {"api", "errors"}, "api": {"store"}, "store": {"errors"}}
    assert remove_implied(imports) == {"cli": {"api"}, "api": {"store"}, "store": {"errors"}}


def test_every_package_has_a_layer() -> None:
    known = {name for layer in load_layers() for name in layer}
    assert set(find_imports()) - known == {"__init__"}
