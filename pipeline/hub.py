"""Model folders on the Hugging Face hub, or on a server that speaks its API (``HF_ENDPOINT``): fetched and uploaded.

Only the files of a model folder are taken, tensors and JSON; whatever else a repository holds stays there.
"""

from __future__ import annotations

import re
from pathlib import Path

from latentcap.data.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = ("config.json", "model.safetensors", "tokenizer.json", "scores.json", "README.md", "context_encoder/*.json")
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def is_repository(name: str | Path) -> bool:
    """Whether a name that is no path here could be that of a repository: ``user/name``."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None and not Path(name).exists()


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a repository's files in the hub's cache; without a network, those that were fetched before.

    Raises:
        UserError: the repository, the revision or a file of a model folder is not there, or cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"'{name}' is no folder here, and on the hub"
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except GatedRepoError:
        raise UserError(f"{where} its owner has to let you in: ask there, then `hf auth login`.") from None
    except RevisionNotFoundError:
        raise UserError(f"{where} there is no revision '{revision}' of it.") from None
    except RepositoryNotFoundError:
        raise UserError(f"{where} there is no repository of that name, or it is private (`hf auth login`).") from None
    except (LocalEntryNotFoundError, OSError, HfHubHTTPError) as error:
        raise UserError(
            f"{where} it could not be reached ({type(error).__name__}), and it was not fetched before. "
            "Give the path of a model folder, or try again with a network."
        ) from None
    if missing := [file for file in NEEDED if not (folder / file).is_file()]:
        raise UserError(f"{name} on the hub is no model folder of latentcap: it lacks {', '.join(missing)}.")
    return folder


def push(folder: Path, name: str, *, private: bool = False, message: str = "Upload of a latentcap model") -> str:
    """Upload a model folder as ``user/name``, which is made where it does not exist. Returns the commit's address.

    Raises:
        UserError: the folder is none of ours, the name is none of the hub's, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if missing := [file for file in NEEDED if not (folder / file).is_file()]:
        raise UserError(f"{folder}: not a whole model folder, it lacks {', '.join(missing)}.")
    if '"format": "latentcap"' not in (folder / "config.json").read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{folder}: its config.json is not latentcap's.")
    if NAME.fullmatch(name) is None:
        raise UserError(f"'{name}' is no name of a repository: give user/name.")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message=message)
    except (HfHubHTTPError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = {401: "it does not know you", 403: "you may not write there"}.get(
            status or 0, str(error).split("\n")[0]
        )
        raise UserError(f"{name}: the hub refused the upload ({reason}). `hf auth login` says who you are.") from None
    return str(done)
