"""Run a saved model on saved inputs with transformers alone: the other side of the proof.

Started as a script in a fresh process, where hubtune cannot be imported:
`python -I replay.py FOLDER AUTO_CLASS INPUTS OUTPUTS`.
"""

import sys


def main(folder: str, auto_class: str, inputs: str, outputs: str) -> None:
    """Read batches named `0.input_ids`, and write what the model makes of them as `0.logits`."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tensors = load_file(inputs)
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    model = getattr(transformers, auto_class).from_pretrained(
        folder, use_safetensors=True, local_files_only=True, dtype=dtype
    ).eval()
    batches: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        batches.setdefault(number, {})[key] = value
    made = {}
    with torch.no_grad():
        for number, batch in batches.items():
            made[f"{number}.logits"] = model(**batch).logits.float().contiguous()
    save_file(made, outputs)


if __name__ == "__main__":
    sys.modules["hubtune"] = None  # type: ignore[assignment]  # an import of it is an error here
    main(*sys.argv[1:5])
