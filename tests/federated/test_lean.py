import subprocess
import sys

PROGRAM = """
import sys
from monai_fedlora.federated.lean import import_monai
import_monai()
assert "monai.engines" in sys.modules
assert "transformers" not in sys.modules, "MONAI pulled in transformers"
import transformers.utils
from monai_fedlora.federated import site
import_monai()
assert sys.modules["transformers"] is transformers
"""


def test_monai_comes_without_what_a_site_does_not_use_and_others_still_find_it() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], check=True, timeout=120)
