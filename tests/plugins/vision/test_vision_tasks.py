"""The vision tasks: their losses, answers and scores, on tiny models of unlike architectures and made images."""

import base64
import io

import numpy as np
import pytest
import torch
from tiny import gold_answer, sample

import hubtune
from hubtune.contract.validation import loss_terms
from hubtune.data import encoding
from hubtune.errors import DataError
from hubtune.evaluation.batches import make_batch
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing.vision import MODEL_TYPES, tiny_vision

Image = pytest.importorskip("PIL.Image", reason="the vision tasks need: pip install 'hubtune[vision]'")
pytest.importorskip("pycocotools", reason="the vision tasks need: pip install 'hubtune[vision]'")

from hubtune_plugins.vision import images, scores  # noqa: E402
from hubtune_plugins.vision.boxes import objects_of  # noqa: E402
from hubtune_plugins.vision.image_classification import ClassificationOptions, ImageClassification  # noqa: E402
from hubtune_plugins.vision.image_segmentation import ImageSegmentation, SegmentationOptions  # noqa: E402
from hubtune_plugins.vision.object_detection import DetectionOptions, ObjectDetection  # noqa: E402

PAIRS = [(ImageClassification, "vit"), (ImageClassification, "convnext"), (ImageClassification, "mobilenet_v2"),
         (ObjectDetection, "yolos"), (ObjectDetection, "rt_detr"), (ImageSegmentation, "segformer"), (ImageSegmentation, "dpt")]
ROWS = 6
opened = images.open_image


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """tiny("vit") is the folder of a tiny model, made once."""
    made = {}

    def build(model_type):
        if model_type not in made:
            made[model_type] = tiny_vision(model_type, tmp_path_factory.mktemp("vision") / model_type)
        return made[model_type]

    return build


def prepared(task, folder, rows, dtype=torch.float64):
    """A model for the task, and its encoded rows."""
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": rows}), base))
    loaded = loading.load(origin, base, task, hubtune.Strategy(), seed=0)
    return loaded.model.to(dtype).eval(), base, encoding.encode(task, rows, base, None)


def terms(task, model, base, encoded, items):
    batch = make_batch(model, task, [encoded.examples[i] for i in items], base)
    return loss_terms(task, task.forward(model, batch), batch), batch.counts


def answers(task, model, base, encoded, items):
    batch = make_batch(model, task, [encoded.examples[i] for i in items], base)
    with torch.no_grad():
        return task.postprocess(task.forward(model, batch), batch, base)


def test_every_tiny_model_is_used_here():
    assert {model_type for _, model_type in PAIRS} == set(MODEL_TYPES)


@pytest.mark.parametrize(("kind", "model_type"), PAIRS)
def test_a_loss_is_additive_and_the_gold_answer_the_best(kind, model_type, tiny):
    task = kind()
    rows = sample(task, ROWS)
    model, base, encoded = prepared(task, tiny(model_type), rows)
    (whole, counts), (one, few), (other, rest) = (
        terms(task, model, base, encoded, items) for items in (range(6), range(2), range(2, 6)))
    for total, left, right in zip(whole, one, other, strict=True):
        both = left + right
        assert few[total.name] + rest[total.name] == pytest.approx(counts[total.name])
        assert both.total.item() == pytest.approx(total.total.item(), rel=1e-12)
    sum(term.total / counts[term.name] for term in whole).backward()
    assert sum(p.grad is not None and bool(p.grad.abs().sum()) for p in model.parameters()) > 10
    gold = task.score([gold_answer(task, row, base) for row in rows], rows, base)
    found = task.score(answers(task, model, base, encoded, range(6)), rows, base)
    assert set(gold.values()) == {1.0}
    assert task.select_metric(base).name in found
    assert all(found[name] < 1.0 for name in gold)


@pytest.mark.parametrize(("kind", "model_type"), PAIRS)
def test_answers_do_not_depend_on_the_batch(kind, model_type, tiny):
    task = kind()
    rows = sample(task, ROWS)
    assert len({images.size_of(row["image"]) for row in rows}) > 1
    model, base, encoded = prepared(task, tiny(model_type), rows)
    together = answers(task, model, base, encoded, range(6))
    for index in (0, 3):
        alone = answers(task, model, base, encoded, [index])[0]
        if kind is ObjectDetection:
            assert [one["score"] for one in alone["boxes"]] == pytest.approx([one["score"] for one in together[index]["boxes"]])
            assert [x for one in alone["boxes"] for x in one["box"]] == pytest.approx(
                [x for one in together[index]["boxes"] for x in one["box"]])
        elif kind is ImageSegmentation:
            assert alone == together[index]
        else:
            assert alone["probabilities"] == pytest.approx(together[index]["probabilities"])


@pytest.mark.parametrize(("kind", "model_type", "steps", "rate"), [
    (ImageClassification, "vit", 20, 3e-3), (ObjectDetection, "yolos", 60, 5e-3), (ObjectDetection, "rt_detr", 20, 3e-3),
    (ImageSegmentation, "segformer", 30, 1e-2),
])
def test_a_few_rows_can_be_learnt(kind, model_type, steps, rate, tiny):
    task = kind()
    rows = sample(task, 4)
    model, base, encoded = prepared(task, tiny(model_type), rows, torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batch = task.collate(encoded.examples, base, None)
    values = []
    torch.manual_seed(0)
    for _ in range(steps):
        loss = sum(term.total / batch.counts[term.name] for term in loss_terms(task, task.forward(model, batch), batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    assert values[-1] < (0.7 if kind is ObjectDetection else 0.25) * values[0]
    if kind is not ObjectDetection:
        assert next(iter(task.score(answers(task, model, base, encoded, range(4)), rows, base).values())) > 0.8


@pytest.mark.parametrize(("kind", "model_type"), [PAIRS[0], PAIRS[2], PAIRS[3], PAIRS[4], PAIRS[5], PAIRS[6]])
def test_what_is_saved_answers_in_a_plain_pipeline(kind, model_type, tiny, tmp_path):
    from transformers import pipeline

    task = kind(DetectionOptions(threshold=0.3)) if kind is ObjectDetection else kind()
    rows = sample(task, 3)
    model, base, encoded = prepared(task, tiny(model_type), rows, torch.float32)
    model.save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    pipe = pipeline(task.pipeline_tag, model=str(tmp_path))
    ours = answers(task, model, base, encoded, range(3))
    for row, prediction in zip(rows, ours, strict=True):
        if kind is ImageClassification:
            assert {one["label"]: one["score"] for one in pipe(opened(row["image"]))} == pytest.approx(prediction["probabilities"], abs=1e-5)
        elif kind is ObjectDetection:
            found = sorted(pipe(opened(row["image"]), threshold=0.3), key=lambda one: -one["score"])  # it leaves them as they came
            shown = task.show(prediction)["boxes"]
            assert [one["score"] for one in found] == pytest.approx([one["score"] for one in shown], abs=1e-5)
            for one, other in zip(found, shown, strict=True):
                assert list(one["box"].values()) == pytest.approx(other["box"], abs=1.01)  # the pipeline cuts decimals off
        else:
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(prediction["mask"]))))
            for one in pipe(opened(row["image"])):
                theirs = np.asarray(one["mask"]) > 0
                assert (theirs == (mask == base.config.label2id[one["label"]])).mean() > 0.999
            assert {one["label"] for one in pipe(opened(row["image"]))} == set(prediction["labels"])


# ----------------------------------------------------------------------------------------------------------- images


def kinds_of(tmp_path):
    """One red image in many forms."""
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    red.save(tmp_path / "red.png")
    file = io.BytesIO()
    red.save(file, "PNG")
    return {"path": str(tmp_path / "red.png"), "file": tmp_path / "red.png", "bytes": file.getvalue(),
            "hub": {"bytes": file.getvalue(), "path": None}, "hub path": {"bytes": None, "path": str(tmp_path / "red.png")},
            "image": red, "array": np.asarray(red), "RGBA": red.convert("RGBA"), "palette": red.convert("P"),
            "CMYK": red.convert("CMYK")}


def test_an_image_may_come_in_any_form(tmp_path):
    for name, value in kinds_of(tmp_path).items():
        rgb = images.load_rgb(value)
        assert (rgb.mode, rgb.size, rgb.getpixel((3, 3))[0] > 240, rgb.getpixel((3, 3))[1] < 15) == ("RGB", (8, 6), True, True), name
        assert images.size_of(value) == (6, 8), name
    for mode, value, level in (("L", 100, 100), ("1", 1, 255), ("I;16", 25600, 100), ("LA", (100, 255), 100)):
        rgb = images.load_rgb(Image.new(mode, (4, 4), value))
        assert rgb.getpixel((0, 0)) == (level,) * 3, mode


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (8, 4), (0, 0, 255))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.load_rgb(tmp_path / "turned.jpg").size == (4, 8)
    assert images.size_of(tmp_path / "turned.jpg") == (8, 4)


def test_images_that_cannot_be_read_are_refused_by_row_and_name(tmp_path):
    rows = sample(ImageClassification(), 4)
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    rows[2] = {**rows[2], "image": str(tmp_path / "broken.png")}
    with pytest.raises(DataError, match=r"1 of 4 values of image are no image that can be read: row 3 of train. broken.png"):
        ImageClassification().validate_data({"train": rows})
    opened(rows[0]["image"]).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    with pytest.raises(DataError) as refused:
        images.load_rgb(str(tmp_path / "cut.png"))
    assert refused.value.where == "cut.png"
    assert str(tmp_path) not in str(refused.value)


def test_a_processor_that_follows_the_image_is_made_to_stretch_it(tiny):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(tiny("yolos"))
    assert images.grid(processor) is None
    assert images.patches(processor, None, (96, 128)) == round(64 * (64 / 96 * 128) / 256)
    made, grid = images.fitted(processor)
    assert grid == (64, 64)
    assert images.fitted(processor, pad=True) == (processor, None)
    cropped = AutoImageProcessor.from_pretrained(tiny("mobilenet_v2"))
    assert images.fitted(cropped) == (cropped, (32, 32))
    made, grid = images.fitted(cropped, crop=False)
    left = np.zeros((40, 80, 3), dtype=np.uint8)
    left[:, :8] = 255
    values = [p(images=[Image.fromarray(left)], return_tensors="np")["pixel_values"].max() for p in (cropped, made)]
    assert values == pytest.approx([-1.0, 1.0])  # the white edge is cut off by the one, and seen by the other


def test_a_processor_that_makes_no_pixels_is_refused_in_one_block():
    """ImageGPT's makes words of pixels, by colours that its file has to name."""
    from transformers import ImageGPTImageProcessor

    with pytest.raises(hubtune.ModelError, match="its image processor makes no pixels of a plain image: ValueError: Clusters must be provided"):
        images.grid(ImageGPTImageProcessor())


# ------------------------------------------------------------------------------------------- what rows may hold


def test_boxes_and_masks_are_mirrored_with_their_images(tiny):
    rngs = [hubtune.ExampleRNG(0, 0, row) for row in range(8)]
    flips = [draw.random().random() < 0.5 for draw in rngs]
    assert len(set(flips)) == 2
    for task, model_type in ((ObjectDetection(DetectionOptions(flip=True)), "rt_detr"),
                             (ImageSegmentation(SegmentationOptions(flip=True)), "segformer"),
                             (ImageClassification(ClassificationOptions(flip=True)), "vit")):
        _, base, encoded = prepared(task, tiny(model_type), sample(task, 8))
        plain, one, again = (task.collate(encoded.examples, base, given) for given in (None, rngs, rngs))
        assert torch.equal(one.inputs["pixel_values"], again.inputs["pixel_values"])
        for index, back in enumerate(flips):
            before, after = plain.inputs["pixel_values"][index], one.inputs["pixel_values"][index]
            assert torch.allclose(before.flip(-1) if back else before, after, atol=0.02)
            if model_type == "rt_detr":
                x, y = (b.targets[index]["boxes"] for b in (plain, one))
                assert torch.allclose(1 - x[:, 0] if back else x[:, 0], y[:, 0])
            if model_type == "segformer":
                x, y = (b.targets["small"][index] for b in (plain, one))
                assert torch.equal(x.flip(-1) if back else x, y)


def test_classes_may_weigh_alike(tiny):
    task = ImageClassification(ClassificationOptions(class_weights="balanced"))
    rows = sample(task, 6)
    rows[1] = {**rows[1], "label": "red"}
    _, base, encoded = prepared(task, tiny("vit"), rows)
    assert task.weights == pytest.approx([6 / (3 * 2), 6 / (3 * 1), 6 / (3 * 3)])
    assert task.collate(encoded.examples, base, None).counts["loss"] == pytest.approx(6.0)


def test_objects_are_written_in_several_ways():
    expected = [("cell", (1.0, 2.0, 3.0, 4.0)), ("7", (0.0, 0.0, 1.0, 1.0))]
    assert objects_of({"bbox": [[1, 2, 3, 4], [0, 0, 1, 1]], "category": ["cell", 7], "area": [1, 1]}) == expected
    assert objects_of([{"boxes": [1, 2, 3, 4], "label": "cell"}, {"boxes": [0, 0, 1, 1], "label": 7}]) == expected
    assert objects_of([]) == objects_of(None) == []


@pytest.mark.parametrize(("objects", "message"), [
    ({"bbox": [[0, 0, 300, 5]], "category": ["red"]}, r"row 2 of train. The first: the box \[0.0, 0.0, 300.0, 5.0\] in an image of 64"),
    ({"bbox": [[0, 0, 0, 5]], "category": ["red"]}, "rows have boxes that cannot be"),
    ({"bbox": [[0, 0, 2, 5]], "category": ["red", "blue"]}, "2 categories and 1 boxes"),
    ({"bbox": [[0, 0, 2, 5]]}, "no bbox or no category"),
])
def test_boxes_that_cannot_be_are_refused(objects, message):
    rows = sample(ObjectDetection(), 3)
    rows[1] = {**rows[1], "objects": objects}
    with pytest.raises(DataError, match=message):
        ObjectDetection().validate_data({"train": rows})


def test_images_without_objects_are_learnt_from_too(tiny):
    task = ObjectDetection()
    rows = sample(task, 4)
    rows[1] = {**rows[1], "objects": {"bbox": [], "category": []}}
    for model_type in ("yolos", "rt_detr"):
        model, base, encoded = prepared(task, tiny(model_type), rows)
        (whole, _), (one, counts), (other, _) = (terms(task, model, base, encoded, items) for items in (range(4), [1], [0, 2, 3]))
        for total, left, right in zip(whole, one, other, strict=True):
            assert (left + right).total.item() == pytest.approx(total.total.item(), rel=1e-12)
        assert counts[one[0].name] == 1.0


def test_one_class_of_objects_is_enough():
    rows = [{**row, "objects": {"bbox": [[1, 1, 9, 9]], "category": ["cell"]}} for row in sample(ObjectDetection(), 3)]
    assert ObjectDetection().validate_data({"train": rows})["labels"] == ["cell"]


def test_average_precision_is_that_of_coco():
    gold = [[(0, 1.0, (0, 0, 10, 10)), (1, 1.0, (20, 20, 10, 10))], [(0, 1.0, (5, 5, 10, 10))]]
    found = [[(0, 0.9, (0, 0, 10, 10)), (1, 0.8, (20, 20, 10, 6))], []]
    whole, each = scores.box_scores(gold, found, ["a", "b", "never"])
    assert set(each) == {"a", "b"}
    assert each["a"] == pytest.approx(51 / 101)  # half of the boxes at a precision of 1, by COCO's 101 recalls
    assert each["b"] == pytest.approx(0.3)  # an IoU of 0.6 is enough at 0.50, 0.55 and 0.60
    assert whole["map"] == pytest.approx((51 / 101 + 0.3) / 2)
    assert scores.box_scores(gold, [[], []], ["a", "b"])[0] == {"map": 0.0, "map_50": 0.0, "map_75": 0.0}


def test_masks_in_black_and_white_and_with_pixels_of_no_class(tiny):
    task = ImageSegmentation(SegmentationOptions(labels=["ground", "cell"]))
    white = [{**row, "mask": opened(row["mask"]).point(lambda v: 255 if v else 0)} for row in sample(task, 4)]
    assert task.validate_data({"train": white}) == {"ids": [0, 255], "labels": ["ground", "cell"]}
    _, base, encoded = prepared(task, tiny("segformer"), white)
    assert base.config.id2label == {0: "ground", 1: "cell"}
    assert set(task.collate(encoded.examples, base, None).targets["small"].unique().tolist()) == {0, 1}
    task = ImageSegmentation()
    some = [{**row, "mask": opened(row["mask"]).point(lambda v: 255 if v == 2 else v)} for row in sample(task, 4)]
    _, base, encoded = prepared(task, tiny("segformer"), some)
    assert base.config.id2label == {0: "0", 1: "1"}
    batch = task.collate(encoded.examples, base, None)
    assert batch.counts["loss"] < batch.targets["small"].numel()
    assert task.score([gold_answer(task, row, base) for row in some], some, base) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}
    assert base.processor.do_reduce_labels is False


@pytest.mark.parametrize(("change", "message"), [
    (lambda mask: mask.resize((9, 9)), "1 masks have another size than their image: row 2 of train. The first: 9 x 9"),
    (lambda mask: Image.merge("RGB", (mask, mask.point(lambda v: v * 9), mask)), "the mask holds colours, not class ids"),
])
def test_masks_that_cannot_be_are_refused(change, message):
    rows = sample(ImageSegmentation(), 3)
    rows[1] = {**rows[1], "mask": change(opened(rows[1]["mask"]))}
    with pytest.raises(DataError, match=message):
        ImageSegmentation().validate_data({"train": rows})


def test_classes_of_masks_that_train_never_shows_or_nobody_named():
    rows = sample(ImageSegmentation(), 3)
    flat = [{**row, "mask": opened(row["mask"]).point(lambda v: 0)} for row in rows]
    with pytest.raises(DataError, match="one class only"):
        ImageSegmentation().validate_data({"train": flat})
    few = [{**row, "mask": opened(row["mask"]).point(lambda v: min(v, 1))} for row in rows]
    with pytest.raises(DataError, match=r"masks of test hold classes that train never shows, \[2\]: rows 1, 2, 3 of test"):
        ImageSegmentation().validate_data({"train": few, "test": rows})
    with pytest.raises(DataError, match=r"hold the classes \[0, 1, 2\], and task.labels names 2"):
        ImageSegmentation(SegmentationOptions(labels=["a", "b"])).validate_data({"train": rows})
