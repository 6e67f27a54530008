"""The plumbing of the notebooks, in rooms; arrows between them point downward only.

apps, training -> inference -> evaluation, runs, plots -> data, models -> color, config, workspace
"""

from importlib.util import find_spec

for name in ("kornia", "lpips", "accelerate", "safetensors"):
    if find_spec(name) is None:
        raise ImportError(
            f"{name} is not installed. On Colab run the setup cell (the first one); elsewhere `make run` once, or "
            "`pip install -r requirements.txt`."
        )
