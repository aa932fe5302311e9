"""Print the oldest versions that pyproject.toml allows, as pip's requirements.

python .ci/oldest_requirements.py EXTRA... > requirements.txt

Packages for the tests have any version. torch is left out: it is installed before.
"""

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
oldest = [*project["dependencies"], *(name for extra in sys.argv[1:] for name in extras[extra])]
for requirement in oldest:
    if not requirement.startswith("torch>"):
        print(re.sub(r">=([0-9.]+)", r"==\1", requirement))
tools = ("pytest", "hypothesis", "playwright")  # what the tests themselves import
print(*(each for each in extras["dev"] if each.startswith(tools)), sep="\n")
print("setuptools<81")  # tensorboard 2.15 imports pkg_resources
