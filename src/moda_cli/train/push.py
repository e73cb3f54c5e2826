"""Uploading a trained model to the Hugging Face Hub, with a model card."""

import json
from pathlib import Path

from moda_cli.errors import ModaError
from moda_cli.files import read_rows

UPLOADED = (
    "model.safetensors",
    "config.json",
    "stats.json",
    "train.json",
    "log.jsonl",
    "README.md",
)
CARD = """---
library_name: moda-cli
tags: [talking-head, moda]
---
# {name}

{what}. Trained with `moda train` (moda-cli; MoDA, arXiv 2507.03256).

{use}

| | |
| --- | --- |
{rows}

The settings are in `train.json`, the course of the training in `log.jsonl`.
"""
MOTION_CARD = "A motion generator: speech and a portrait in, facial motion out"
SYNC_CARD = "A sync expert (ALSE): how well lips and speech belong together"


def push_model(run: Path, name: str) -> str:
    """Upload the run's model files and a card to `owner/name`; the page's address.

    Raises ModaError where the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    (run / "README.md").write_text(model_card(run, name))
    api = HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=run,
            allow_patterns=list(UPLOADED),
            commit_message="Model trained with moda train",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModaError(
            f"cannot upload {run} to {name}: {reason}",
            hint="the run is complete; set HF_TOKEN and run the same command again",
        ) from None
    return f"{api.endpoint}/{name}"


def model_card(run: Path, name: str) -> str:
    """The README of the repository: what the model is, how it was trained, what was measured."""
    settings = json.loads((run / "train.json").read_text())
    last = read_rows(run / "log.jsonl")[-1]
    model = settings["model"]
    motion = "overlap" in model
    use = f"`hf download {name} --local-dir model`, then "
    use += "`moda generate PORTRAIT AUDIO --model model -o out.mp4`." if motion else (
        "`moda train FEATURES --alse model -o RUN`."
    )  # fmt: skip
    shown = ("batch_size", "learning_rate", "audio_dropout", "emotion_dropout", "alse", "seed")
    rows = {"audio": model["audio"]} | {key: settings[key] for key in shown} | last
    lines = (f"| {key} | {_short(value)} |" for key, value in rows.items())
    what = MOTION_CARD if motion else SYNC_CARD
    return CARD.format(name=name, what=what, use=use, rows="\n".join(lines))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
