"""What every vision task is: it reads images through an image processor and measures them in patches."""

from hubtune import Column, Task

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

    def usage(self, repo, base):
        return (f'from transformers import pipeline\n\npipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
                'print(pipe("image.png"))')
