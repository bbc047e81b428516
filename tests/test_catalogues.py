"""What other packages add by entry points: found by name, imported when used, and never in the way of other names."""

from __future__ import annotations

import sys

import pytest

from monai_fedlora.catalogues import code_of, trust, trusting
from monai_fedlora.errors import ConfigError, PolicyError
from monai_fedlora.methods import METHODS, get_method
from tests.plugin_packages import Install

METHOD = """
from dataclasses import dataclass
from monai_fedlora.methods.low_rank import AveragedLora

@dataclass(frozen=True, kw_only=True)
class Quiet(AveragedLora):
    name = "quiet"
    summary = "one LoRA"
    source = "a test"
    adapters = ("shared",)
    rank: int = 2
"""


def test_a_method_of_another_package_is_one_by_its_name(install: Install) -> None:
    install("quiet-lora", {"methods:quiet": "quiet_lora:Quiet"}, {"quiet_lora": METHOD})
    assert "quiet" in METHODS.names()
    assert "quiet_lora" not in sys.modules
    method = get_method("quiet", {"alpha": 4})
    assert (method.rank, method.alpha) == (2, 4)  # type: ignore[attr-defined]
    found = METHODS.plugin("quiet")
    assert found is not None and (found.distribution, found.version) == ("quiet-lora", "1.0")
    with pytest.raises(ConfigError, match="'quite'; did you mean 'quiet'"):
        get_method("quite")


BROKEN = {
    "import_fails": ("broken_one:Method", "import nowhere_to_be_found", "ModuleNotFoundError"),
    "ends_the_process": ("broken_two:Method", "raise SystemExit(3)", "SystemExit"),
    "no_attribute": ("broken_three:Method", "", "AttributeError"),
    "wrong_kind": ("broken_four:Method", "Method = 3", "gives 3, which is no class of a method"),
    "abstract": ("broken_five:Method", "from monai_fedlora.methods import Method", "no class of a method"),
    "other_name": (
        "broken_six:Fed",
        "from monai_fedlora.methods.fedit import FedIt as Fed",
        "a method that calls itself 'fedit'",
    ),
}


def test_a_plug_in_that_cannot_be_used_says_of_which_package_it_is_and_costs_no_other_name(install: Install) -> None:
    for name, (target, text, _) in BROKEN.items():
        install(f"broken-{name}", {f"methods:{name}": target}, {target.partition(":")[0]: text})
    for name, (target, _, why) in BROKEN.items():
        with pytest.raises(ConfigError, match=f"broken-{name} 1.0 .entry point {name} = {target}") as caught:
            get_method(name)
        assert why in str(caught.value)
    assert get_method("dual_lora").name == "dual_lora"
    assert len(METHODS.problems()) == len(BROKEN)


def test_a_name_that_is_taken_is_refused_and_no_other(install: Install) -> None:
    install("thief", {"methods:dual_lora": "thief_one:Quiet", "methods:own": "thief_one:Own"}, {"thief_one": METHOD})
    install("other", {"methods:own": "thief_one:Own"}, {})
    with pytest.raises(ConfigError, match=r"'dual_lora' is built in, and thief 1.0 .* claims the name too"):
        get_method("dual_lora")
    with pytest.raises(ConfigError, match=r"'own' is claimed by other 1.0 .* and by thief 1.0"):
        get_method("own")
    assert METHODS.names().count("dual_lora") == METHODS.names().count("own") == 1
    assert get_method("fedit").name == "fedit"
    assert "thief_one" not in sys.modules


def test_nothing_of_a_package_that_is_not_trusted_is_imported(install: Install) -> None:
    text = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n" + METHOD
    folder = install("Quiet_Lora", {"methods:quiet": "quiet_lora:Quiet"}, {"quiet_lora": text})
    with trusting((), source="a policy"):
        with pytest.raises(PolicyError, match=r"Quiet_Lora 1.0 .*a policy.*--plugins Quiet_Lora"):
            get_method("quiet")
        assert METHODS.names().count("quiet") == 1
        assert not (folder / "quiet_lora.ran").exists()
    with trusting(["quiet-lora"], source="a policy"):
        assert get_method("quiet").name == "quiet"
    assert (folder / "quiet_lora.ran").exists()
    trust((), source="a policy")
    with pytest.raises(PolicyError):  # though it is imported by now
        get_method("quiet")


def test_code_of_a_plug_in_is_known_by_its_bytes_and_version(install: Install) -> None:
    def seen(name: str, version: str, text: str) -> str:
        folder = install(name, {"methods:quiet": "quiet_lora:Quiet"}, {"quiet_lora": text}, version=version)
        found = code_of("quiet_lora.inner")
        sys.path.remove(str(folder))
        return found

    assert code_of("quiet_lora") == code_of("torch.nn") == ""
    found = [seen("a", "1", "x"), seen("b", "2", "x"), seen("c", "2", "y")]
    assert "" not in found and len(set(found)) == 3
