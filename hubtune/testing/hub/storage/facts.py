"""What the Hub tells about a repo: everything derived from its files, in the shape its API has."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hubtune.testing.hub.storage import card, weights
from hubtune.testing.hub.storage.history import Commit
from hubtune.testing.hub.storage.store import Repo, Store

# The end of an architecture's name -> the task; what the Hub falls back to when the card names none.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
}
_FORMATS = {"csv": "csv", "parquet": "parquet", "jsonl": "json", "json": "json"}
_LISTED = (
    "_id",
    "id",
    "modelId",
    "author",
    "private",
    "gated",
    "likes",
    "downloads",
    "tags",
    "createdAt",
    "sha",
    "disabled",
)
_LISTED_MODEL = ("pipeline_tag", "library_name")
_FULL = ("lastModified", "siblings")
_ONLY_IF_ASKED = ("downloadsAllTime", "trendingScore", "mainSize", "baseModels", "evalResults", "description")


class Facts:
    """One repo at one commit, as the API describes it."""

    def __init__(self, store: Store, repo: Repo, commit: Commit) -> None:
        self._repo = repo
        self._commit = commit
        self._blobs = store.blobs(repo)
        readme = self._text("README.md") or ""
        self.card = card.read(readme)
        self._config = self._json("config.json")

    def all(self, blobs: bool = False) -> dict[str, Any]:
        """Every property there is to tell; those that are unknown are left out."""
        repo, told = self._repo, self._about()
        used = sum({one.etag: one.size for one in self._commit.tree.values()}.values())
        told |= {"siblings": self._siblings(blobs), "usedStorage": used, "cardData": self.card or None, "spaces": []}
        if repo.kind == "model":
            told |= {
                "pipeline_tag": self.pipeline_tag,
                "library_name": self.library,
                "config": self._config_subset() or None,
                "safetensors": weights.summary(
                    self._commit.tree, lambda name: self._blobs.path(self._commit.tree[name])
                ),
                "model-index": self.card.get("model-index"),
                "transformersInfo": self._transformers_info(),
            }
        else:
            told |= {"mainSize": used, "description": self.card.get("pretty_name")}
        told |= {"downloadsAllTime": repo.downloads, "trendingScore": repo.likes}
        return {key: value for key, value in told.items() if value is not None}

    def shown(self, blobs: bool = False) -> dict[str, Any]:
        """Return what is told when nothing special is asked for."""
        return {key: value for key, value in self.all(blobs).items() if key not in _ONLY_IF_ASKED}

    def expanded(self, keys: list[str]) -> dict[str, Any]:
        """Only what is asked for."""
        return {key: value for key, value in self.all().items() if key in ("_id", "id", *keys)}

    def listed(self, full: bool, config: bool, with_card: bool) -> dict[str, Any]:
        """Return what a list of repos tells of each."""
        keys = [*_LISTED, *(_LISTED_MODEL if self._repo.kind == "model" else ("lastModified",))]
        keys += [*(_FULL if full else ()), *(["config"] if config else ()), *(["cardData"] if with_card else ())]
        return {key: value for key, value in self.all().items() if key in keys}

    @property
    def tags(self) -> list[str]:
        """The library and the task first, then what the card says, then what the files show."""
        found: list[str | None] = []
        if self._repo.kind == "model":
            found += [self.library, self._config.get("model_type"), self.pipeline_tag]
        found += card.tags(self.card, self._repo.kind)
        endings = {path.rsplit(".", 1)[-1] for path in self._commit.tree}
        if self._repo.kind == "model":
            found += ["safetensors"] if "safetensors" in endings else []
        else:
            found += [f"format:{name}" for end, name in _FORMATS.items() if end in endings] + ["library:datasets"]
        return list(dict.fromkeys(tag for tag in [*found, "region:us"] if tag))

    @property
    def pipeline_tag(self) -> str | None:
        """The task the card names, or the one the architecture is made for."""
        if named := self.card.get("pipeline_tag"):
            return str(named)
        names = self._config.get("architectures") or []
        return next((task for name in names for end, task in _TASKS.items() if str(name).endswith(end)), None)

    @property
    def library(self) -> str | None:
        """The library the card names, or the one whose files these are."""
        if named := self.card.get("library_name"):
            return str(named)
        tree = self._commit.tree
        if "adapter_config.json" in tree:
            return "peft"
        if "modules.json" in tree:
            return "sentence-transformers"
        return "transformers" if "model_type" in self._config else None

    def _about(self) -> dict[str, Any]:
        repo = self._repo
        number = hashlib.sha256(f"{repo.kind} {repo.id}".encode()).hexdigest()[:24]
        told = {"_id": number, "id": repo.id, "author": repo.namespace or None, "sha": self._commit.oid}
        if repo.kind == "model":
            told["modelId"] = repo.id
        counts = {"downloads": repo.downloads, "likes": repo.likes}
        dates = {"createdAt": repo.created, "lastModified": self._commit.date}
        return {
            **told,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "tags": self.tags,
            **counts,
            **dates,
        }

    def _siblings(self, blobs: bool) -> list[dict[str, Any]]:
        told = []
        for path, entry in self._commit.tree.items():
            file: dict[str, Any] = {"rfilename": path}
            if blobs:
                file |= {"size": entry.size, "blobId": entry.oid}
                if entry.sha256:
                    file["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
            told.append(file)
        return told

    def _config_subset(self) -> dict[str, Any]:
        subset = {
            key: self._config[key]
            for key in ("architectures", "model_type", "quantization_config")
            if key in self._config
        }
        tokens = self._json("tokenizer_config.json")
        kept = {key: one for key, one in tokens.items() if key.endswith("_token") or key == "chat_template"}
        adapter = self._json("adapter_config.json")
        peft = {key: adapter[key] for key in ("base_model_name_or_path", "task_type") if key in adapter}
        return subset | ({"tokenizer_config": kept} if kept else {}) | ({"peft": peft} if peft else {})

    def _transformers_info(self) -> dict[str, Any] | None:
        if self.library != "transformers":
            return None
        name = str((self._config.get("architectures") or [""])[0])
        head = name[name.index("For") :] if "For" in name else ""
        told = {"auto_model": f"AutoModel{head}", "pipeline_tag": self.pipeline_tag}
        return {key: value for key, value in told.items() if value}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            data = json.loads(self._text(name) or "{}")
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def _text(self, name: str) -> str | None:
        entry = self._commit.tree.get(name)
        return self._blobs.path(entry).read_text("utf-8", errors="replace") if entry else None
