"""What every vision task is: it reads images through an image processor, measures them in patches, and names classes."""

from hubtune import Column, DataError, Task
from hubtune_vision.images import run

IMAGE = Column("image", ("image", "img", "picture", "photo", "pixel_values", "file_name"), kind="image")


class ImageTask(Task):
    """A task on images. Examples hold `image` as the data has it, `row`, and `patches`."""

    contract = 1
    processor = "AutoImageProcessor"
    unit = "patches"
    needs = ("PIL",)
    extra = "hubtune[vision]"

    def size(self, example):
        return example["patches"]

    def forward(self, model, batch):
        return run(model, batch.inputs)

    def usage(self, repo, base):
        return (f'from transformers import pipeline\n\npipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
                'print(pipe("image.png"))')


def class_names(names, base):
    """The configuration of so many named classes; a head that is trained already keeps its order."""
    old = list((getattr(base.config, "id2label", None) or {}).values())
    names = old if not names or set(old) == set(names) else list(names)
    return {"num_labels": len(names), "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)}}


def known_id(name, base):
    """The id of a class, refused where the model has none of that name."""
    if name not in base.config.label2id:
        raise DataError(f"the label {name!r} is none of the model's: {', '.join(map(repr, base.config.label2id))}.")
    return base.config.label2id[name]
